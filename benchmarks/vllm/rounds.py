"""Rounds of two sides in turns, kept in a file: a measurement may be made in several short pieces."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from benchmarks.vllm.models import RUNS, Model
from guardrail.bench.ratios import interval

Side = Mapping[str, float]
"""Requests a second of one round: `wall`, and `cpu`, those for a second of processor time."""
LEAST = 3


class Rounds:
    """The rounds of one measurement of a model, each a pair (guarded, bare). ABBA: the first side changes."""

    def __init__(self, model: Model, name: str) -> None:
        self.path = RUNS / f"{model.name}-{name}-rounds.jsonl"
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        self.pairs: list[tuple[Side, Side]] = [tuple(json.loads(line)) for line in text.splitlines()]

    def go_on(self, sides: Mapping[str, Callable[[], Side]], seconds: float) -> None:
        """More rounds for so long; every pair is written down before the next one begins."""
        end, begun = monotonic() + seconds, len(self.pairs)
        while monotonic() < end or len(self.pairs) < begun + LEAST:
            order = list(sides) if len(self.pairs) % 2 == 0 else list(sides)[::-1]
            one = {name: sides[name]() for name in order}
            self._keep(one["guarded"], one["bare"])

    def _keep(self, guarded: Side, bare: Side) -> None:
        self.pairs.append((guarded, bare))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps([guarded, bare]) + "\n")
        print("guarded", dict(guarded), "bare", dict(bare), flush=True)

    def numbers(self) -> dict[str, Any]:
        """Ratios guarded / bare with 95 % intervals over all pairs, and what they are of."""
        ratios = {kind: [one[kind] / other[kind] for one, other in self.pairs] for kind in ("wall", "cpu")}
        return {
            "rounds": len(self.pairs),
            "ratio_wall": interval(ratios["wall"]),
            "ratio_processor": interval(ratios["cpu"]),
            "guarded_requests_per_second": [one["wall"] for one, _ in self.pairs],
            "bare_requests_per_second": [other["wall"] for _, other in self.pairs],
        }
