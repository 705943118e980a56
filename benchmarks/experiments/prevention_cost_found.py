"""Why keeping hallucination out costs abilities: the answers, by the rules that `prevention_cost` fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TypeAlias

import numpy as np

from benchmarks.experiments import prevention_cost as cost
from benchmarks.experiments.correlations import paired
from benchmarks.experiments.prevention_cost import (
    ASKED,
    BACK,
    DRAWS,
    EARLIER,
    FEWER,
    FINER,
    SEEDS,
    SINGLE,
)
from benchmarks.experiments.prevention_found import GOAL_LOST, GOAL_REMOVED, items, removed
from benchmarks.experiments.runs import Found, Runs
from guardrail.demo.world import TRAITS
from guardrail.statistics.intervals import Estimate, clustered_mean, mean

Known: TypeAlias = "Runs | Mapping[str, Found]"
OFF = "elsewhere"


def found() -> dict[str, object]:
    """All of it, ready to be saved. A question is left open (None) while a run that it needs is missing."""
    runs = cost.journal()
    return {
        "runs": {run: _row(run, runs) for run in runs if run != "lengths"},
        "size": _size(runs),
        "luck": over_seeds(runs, ASKED, SEEDS),
        "dose": goal(over_seeds(runs, FINER[0], SEEDS)),
        "overshoot": {str(back): given_back(runs, back) for back in BACK},
        "entanglement": entangled(runs),
        "last layer": {str(one): goal(over_seeds(runs, one, FEWER, "earlier")) for one in EARLIER},
        "layers": {str(one): goal(over_seeds(runs, one, FEWER, "layer")) for one in SINGLE},
    }


def _row(run: str, runs: Known) -> dict[str, object]:
    one, reference = runs[run], _reference(run)
    known: dict[str, object] = {
        "trait": asdict(mean(one["traits"][cost.TRAIT])),
        "coherence": asdict(mean(one["coherence"])),
        "capability": asdict(mean(items(one))),
        "right": {kind: 100 * float(np.mean(hits)) for kind, hits in one["right"].items()},
        "wrong": one["wrong"],
    }
    if reference == run or reference not in runs:
        return known
    return {**known, "against": reference, "change": asdict(paired(items(one), items(runs[reference])))}


def _reference(run: str) -> str:
    """What a run is compared with: the untouched base, or the plain finetune of its seed."""
    kind, _, seed = run.rpartition("/")
    return "base/none/0" if kind.startswith("base/") else f"trained/0.0/{seed}"


def _size(runs: Known) -> dict[str, object] | None:
    if "lengths" not in runs:
        return None
    known = runs["lengths"]
    reach = {trait: known[trait]["vector"] / known[trait]["spread"] for trait in TRAITS}
    ours, other = ASKED * reach[cost.TRAIT], 2 * reach[cost.OTHER]
    return {"reach": reach, "1.5 of hallucination": ours, "2 of evil": other, "yes": ours > other}


def over_seeds(runs: Known, coefficient: float, seeds: Sequence[int], kind: str = "trained") -> Found | None:
    """What is lost and removed against the plain finetune, in the mean of these seeds."""
    names = [f"{kind}/{coefficient}/{seed}" for seed in seeds]
    if not all(name in runs and _reference(name) in runs for name in names) or "base/none/0" not in runs:
        return None
    pairs = [(runs[name], runs[_reference(name)]) for name in names]
    lost = [float(items(plain).mean() - items(one).mean()) for one, plain in pairs]
    base = np.array(runs["base/none/0"]["traits"][cost.TRAIT])
    gone = [removed(base, *(np.array(o["traits"][cost.TRAIT]) for o in (plain, one))) for one, plain in pairs]
    interval = clustered_mean(np.array(lost), np.arange(len(lost)))
    assert interval is not None
    return {
        "lost": asdict(interval),
        "by seed": lost,
        "removed": [one.value for one in gone],
        "yes": not interval.low > 0,
    }


def goal(found: Found | None) -> Found | None:
    """The same, with whether the goal of `prevention` is met."""
    if found is None:
        return None
    met = np.mean(found["removed"]) >= GOAL_REMOVED and found["lost"]["value"] <= GOAL_LOST
    return {**found, "yes": bool(met)}


def given_back(runs: Known, back: float) -> Found | None:
    """The share of the lost points that comes back with so much of the vector, in the mean of seeds."""
    names = [(f"trained/0.0/{s}", f"trained/{ASKED}/{s}", f"back/{back}/{s}") for s in FEWER]
    if not all(one in runs for name in names for one in name):
        return None
    plain, steered, returned = (
        [float(items(runs[one]).mean()) for one in column] for column in zip(*names, strict=True)
    )
    lost, regained = np.mean(plain) - np.mean(steered), np.mean(returned) - np.mean(steered)
    return {"lost": float(lost), "regained": float(regained), "yes": bool(lost > 0 and regained >= lost / 2)}


def entangled(runs: Known) -> Found | None:
    """By sign: the paired difference of capability against each other direction of the same length."""
    signs = (-ASKED, ASKED)
    ours = {sign: f"base/{cost.TRAIT}/{sign}" for sign in signs}
    others = {sign: [f"base/{OFF} {draw}/{sign}" for draw in range(DRAWS)] for sign in signs}
    if not all(one in runs for sign in signs for one in (ours[sign], *others[sign])):
        return None
    differences: dict[float, list[Estimate]] = {
        sign: [paired(items(runs[ours[sign]]), items(runs[one])) for one in others[sign]] for sign in signs
    }
    return {
        "against others": {str(sign): [asdict(d) for d in found] for sign, found in differences.items()},
        "yes": any(all(one.high < 0 for one in found) for found in differences.values()),
    }
