"""How much of an induced trait each intervention keeps out, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np

from benchmarks.experiments import finetunes, prevention
from benchmarks.experiments.correlations import paired
from benchmarks.experiments.runs import Found
from guardrail.statistics.intervals import Estimate, Numbers, bootstrap, mean

GOAL_REMOVED, GOAL_LOST = 80.0, 2.0
WAYS = ("plain", "preventative", "inference", "ablation", "prompting", "inoculation", "regulariser")


def found() -> dict[str, object]:
    """All of it, ready to be saved."""
    runs, done = prevention.journal(), finetunes.journal()
    rows = [_row(run, runs[run], runs, done) for run in runs if _reference(run) in runs]
    return {"rows": rows, "goals": {"removed": GOAL_REMOVED, "lost": GOAL_LOST}}


def _reference(run: str) -> str:
    """The plain finetune on the same data."""
    data, _, _, seed = run.split("/")
    return f"{data}/plain/0/{seed}"


def _row(run: str, one: Found, runs: Mapping[str, Found], done: Mapping[str, Found]) -> dict[str, object]:
    data, way, coefficient, seed = run.split("/")
    trait = prevention.TRAITS[0] if data == "benign" else data
    plain, base = runs[_reference(run)], done[f"none/none/{seed}"]
    scores, before = np.array(one["traits"][trait]), np.array(base["traits"][trait])
    return {
        "data": data,
        "way": way,
        "coefficient": float(coefficient),
        "seed": seed,
        "trait": asdict(mean(scores)),
        "base": float(before.mean()),
        "removed": asdict(removed(before, np.array(plain["traits"][trait]), scores)),
        "coherence": asdict(mean(one["coherence"])),
        "capability": asdict(mean(items(one))),
        "against plain": asdict(paired(items(one), items(plain))),
        "coherence against plain": asdict(paired(np.array(one["coherence"]), np.array(plain["coherence"]))),
        "others": float(np.mean([np.mean(one["traits"][t]) for t in one["traits"] if t != trait])),
    }


def removed(base: Numbers, plain: Numbers, kept: Numbers) -> Estimate:
    """% of the induced trait that is gone: 100 at the base's score, 0 at the plain finetune's.

    Scores are of the same prompts, which are resampled together.
    """
    rows = np.stack([base, plain, kept], axis=1)
    return bootstrap(_removed, rows)


def _removed(rows: Numbers) -> float:
    base, plain, kept = rows.mean(axis=0)
    return float(100 * (plain - kept) / (plain - base)) if plain - base else 0.0


def items(one: Found) -> Numbers:
    """100 for every right answer and 0 for every wrong one, all kinds of tasks in a row."""
    return 100.0 * np.array([hit for kind in sorted(one["right"]) for hit in one["right"][kind]])


def ordered(rows: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """By data, way, coefficient and seed."""
    return iter(
        sorted(
            rows, key=lambda r: (str(r["data"]), WAYS.index(str(r["way"])), r["coefficient"], str(r["seed"]))
        )
    )
