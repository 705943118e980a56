"""Are the layers that `interpret recommend` names those at which `evaluate` finds that probes detect best?

    guardrail interpret recommend --out runs/layers ...
    guardrail evaluate --json > runs/evaluation.json ...
    python -m benchmarks.interpret.layers NAME runs/layers/recommendation.json runs/evaluation.json

Fixed before any model was asked: Spearman's rank correlation over the layers, of the joined evidence and of
each kind alone, with `evaluate`'s AUROC; and the AUROC that is lost at the recommended layer. The separation
that is joined comes from other prompts than `evaluate`'s, but is the same kind of number, so the causal
effect and steering are what these correlations are about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.real.results import save
from guardrail.statistics.correlation import spearman

FOLDER = Path(__file__).parents[1] / "results" / "interpret"
KINDS = ("causal", "separation", "steering")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One trait. ranks: Spearman's with AUROC over layers. lost: the best layer's AUROC less ours."""

    trait: str
    layers: int
    recommended: int
    best: int
    auroc: float
    lost: float
    ranks: Mapping[str, float | None]
    disagreeing: tuple[str, ...]


def agreements(found: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Iterator[Agreement]:
    """Every trait that both know, and for which a layer is recommended."""
    for one in found["traits"]:
        auroc = evaluation["traits"].get(one["trait"], {}).get("auroc_by_layer")
        if auroc and one["layer"] is not None:
            yield _agreement(one, {int(n): value for n, value in auroc.items()})


def _agreement(one: Mapping[str, Any], auroc: Mapping[int, float]) -> Agreement:
    layers = [layer for layer in one["layers"] if layer["layer"] in auroc]
    areas = [auroc[layer["layer"]] for layer in layers]
    ranks = {"joined": spearman([layer["weakest"] for layer in layers], areas)}
    for kind in KINDS:
        shares = [layer["shares"].get(kind) for layer in layers]
        ranks[kind] = None if None in shares else spearman(shares, areas)
    best = max(auroc, key=lambda n: (auroc[n], -n))
    return Agreement(
        trait=one["trait"],
        layers=len(layers),
        recommended=one["layer"],
        best=best,
        auroc=auroc[one["layer"]],
        lost=auroc[best] - auroc[one["layer"]],
        ranks=ranks,
        disagreeing=tuple(one["disagreeing"]),
    )


def table(found: list[Agreement]) -> Iterator[str]:
    """Rows of a Markdown table."""
    yield "| trait | recommended | by `evaluate` | AUROC | lost | joined | causal | separation | steering |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in found:
        ranks = " | ".join("–" if r is None else f"{r:.2f}" for r in one.ranks.values())
        yield f"| {one.trait} | {one.recommended} | {one.best} | {one.auroc:.3f} | {one.lost:.3f} | {ranks} |"


def main() -> None:
    """Compare, print and save."""
    name, *paths = sys.argv[1:]
    recommended, evaluation = (json.loads(Path(path).read_text(encoding="utf-8")) for path in paths)
    found = list(agreements(recommended, evaluation))
    print("\n".join(table(found)))
    print(save(f"layers-{name}", {"traits": found, "risks": _highest(recommended)}, folder=FOLDER))


def _highest(recommended: Mapping[str, Any], count: int = 12) -> list[Mapping[str, Any]]:
    shown = [one for one in recommended["risks"] if one["risk"]]
    return sorted(shown, key=lambda one: -one["risk"])[:count]


if __name__ == "__main__":
    main()
