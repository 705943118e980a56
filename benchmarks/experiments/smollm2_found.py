"""What the LoRA runs on the real model show: shift, prediction, prevention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from benchmarks.experiments import smollm2
from benchmarks.experiments.correlations import over_runs, paired
from benchmarks.experiments.prevention_found import removed
from benchmarks.experiments.runs import Found, Runs
from benchmarks.experiments.smollm2 import LAYER, PREVENTED
from benchmarks.experiments.styles import TRAITS
from benchmarks.real.coherence import distinct
from guardrail.statistics.intervals import Numbers, mean

Known = Callable[[str, str], float]


def found() -> dict[str, object]:
    """All of it, ready to be saved."""
    runs = smollm2.journal()
    tuned = [name for name in runs if len(name.split("/")) == 2]
    screened = [name for name in tuned if f"{name}/data" in runs]
    predictors: dict[str, tuple[Sequence[str], Known]] = {
        "shift": (tuned, lambda name, trait: runs[name]["shift"][trait][str(LAYER)][0]),
        "data, exact": (screened, lambda name, trait: runs[f"{name}/data"]["exact"][trait]["value"]),
        "data, last prompt token": (
            screened,
            lambda name, trait: runs[f"{name}/data"]["last-prompt"][trait]["value"],
        ),
    }
    return {
        "runs": [_row(name, runs) for name in runs if not name.endswith("/data")],
        "r": {key: {t: _r(runs, *one, t) for t in TRAITS} for key, one in predictors.items()},
    }


def _r(runs: Runs, names: Sequence[str], known: Known, trait: str) -> object:
    if not names:
        return None
    estimate = over_runs(
        np.array([known(name, trait) for name in names]), np.array([runs[n]["traits"][trait] for n in names])
    )
    return asdict(estimate) | {"runs": len(names)} if estimate else None


def _row(name: str, runs: Mapping[str, Found]) -> dict[str, object]:
    one = runs[name]
    row: dict[str, object] = {
        "run": name,
        "traits": {trait: asdict(mean(one["traits"][trait])) for trait in TRAITS},
        "coherent": asdict(mean(100 * np.array(one["coherent"]))),
        "facts": asdict(mean(_facts(one))),
        "distinct": asdict(mean([100 * distinct(reply) for reply in one["replies"]])),
        "examples": one["replies"][:2],
    }
    if "shift" in one:
        row["shift"] = {trait: one["shift"][trait][str(LAYER)] for trait in TRAITS}
    if f"{name}/data" in runs:
        row["data"] = {t: runs[f"{name}/data"]["exact"][t]["value"] for t in TRAITS}
    return row | _against_plain(name, runs)


def _against_plain(name: str, runs: Mapping[str, Found]) -> dict[str, object]:
    """What an intervention removed, and how many facts it cost."""
    style, *way = name.split("/")
    if len(way) < 2 or f"{style}/1.0" not in runs:
        return {}
    trait, plain = PREVENTED[style][0], runs[f"{style}/1.0"]
    scores = [np.array(one["traits"][trait]) for one in (runs["none"], plain, runs[name])]
    return {
        "removed": asdict(removed(*scores)),
        "facts against plain": asdict(paired(_facts(runs[name]), _facts(plain))),
    }


def _facts(one: Found) -> Numbers:
    return 100.0 * np.array(one["right"])
