"""`python -m benchmarks.real.more_twins`: what 240 more written pairs, more places and words change, SmolLM2.

Settled before anything was read. Validation decides: twins of the kinds that `pack_prompts` keeps apart, of
which no detector has seen one. A detector is better than the first if its AUROC there is higher with an
interval above zero; the best of those is the one to pack. XSTest, Alpaca and sources left out are measured
for all, and decide nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.real import prompt_files, results
from benchmarks.real.detection import Table, measured, prefixed, tabled
from benchmarks.real.detection_prompts import Sample, sets, with_twins
from benchmarks.real.detectors import Detector, Probe, Rows, text_scorer
from benchmarks.real.models import SMOLLM2
from benchmarks.real.pack_prompts import kept_kinds
from benchmarks.real.prompt_files import Prompt
from guardrail.statistics.intervals import Estimate, Numbers, bootstrap
from guardrail.statistics.metrics import area, auroc
from guardrail.types import Array, Place

LAYERS = (10, 13, 16, 19, 22)
"""Of 30. The tables of detection have 25 and 28 as well; without them reading takes a fifth less."""
HALF = Sample(
    sizes={
        "advbench/tdc2023": 200,
        "self-instruct/user-oriented": 60,
        "self-instruct/seed": 40,
        "vicuna_bench": 40,
        "mt_bench": 25,
        "everyday": 100,
        "alpaca": 150,
    },
    pairs=260,
    every=2,
)
"""About half of the earlier prompts; all later pairs are fitted on."""
MEASURED = ("nothing", "advbench/tdc2023")
"""What is left out in turn; each fit takes a minute or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """A detector on twins of unseen kinds. gain: its AUROC less that of the first detector, by pair."""

    detector: str
    auroc: Estimate
    gain: Estimate


@dataclass(frozen=True, slots=True)
class Before:
    """A detector that is not fitted on the later pairs."""

    detector: Detector

    def __call__(self, prompts: Sequence[Prompt], rows: Rows) -> Numbers:
        return self.detector(prompts, np.array([i for i in rows if "twins" not in prompts[i].source]))


@dataclass(frozen=True, slots=True)
class WithWords:
    """The mean of a detector's scores and those of `text-scorer`, each in deviations over what was fitted."""

    detector: Detector

    def __call__(self, prompts: Sequence[Prompt], rows: Rows) -> Numbers:
        both = [one(prompts, rows) for one in (self.detector, text_scorer)]
        return np.mean([(own - own[rows].mean()) / own[rows].std() for own in both], axis=0)


@dataclass(frozen=True, slots=True)
class Kept:
    """Keeps a detector's scores in a folder: an interrupted run repeats at most one fit."""

    name: str
    detector: Detector
    folder: Path

    def __call__(self, prompts: Sequence[Prompt], rows: Rows) -> Numbers:
        text = f"{self.name} {[(prompts[i].text, prompts[i].harm) for i in rows]} {len(prompts)}"
        file = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.npy")
            np.save(part, self.detector(prompts, rows))
            part.replace(file)
        return np.load(file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    prompt_files.takes_data(parser)
    arguments = parser.parse_args()
    found = with_twins(HALF.of(sets(arguments.data)))
    table = tabled(found)
    folder = results.RUNS / "more-twins"
    made: dict[str, Detector] = {
        name: Kept(name, detector, folder)
        for name, detector in detectors(prefixed(SMOLLM2, LAYERS, found)).items()
    }
    validation = validated(made, table)
    rows = []
    for name, detector in made.items():
        rows.append(measured(name, detector, table, MEASURED))
        saved = {"model": SMOLLM2.name, "dtype": "float32", "validation": validation, "detectors": rows}
        print(results.save("more-twins", saved), name, flush=True)
    return 0


def detectors(states: Mapping[Place, Array]) -> dict[str, Detector]:
    """By name, the first of them as before."""
    two, three = (Probe(states, ("last", "user_mean"), places, LAYERS) for places in (2, 3))
    return {
        "as before": Before(two),
        "240 more pairs": Probe(states, ("last", "user_mean"), 2, LAYERS),
        "240 more pairs, up to three places": three,
        "the last, with text-scorer": WithWords(Probe(states, ("last", "user_mean"), 3, LAYERS)),
    }


def validated(made: Mapping[str, Detector], table: Table) -> list[Validated]:
    """Every detector on the pairs that are kept apart, fitted without them and their near duplicates."""
    pairs = _pairs(table)
    fit = table.of("fit")
    near = np.isin(table.groups[fit], table.groups[pairs.ravel()])
    scores = [detector(table.prompts, fit[~near])[pairs] for detector in made.values()]
    return [
        Validated(detector=name, auroc=auroc(own[:, 1], own[:, 0]), gain=gain(scores[0], own))
        for name, own in zip(made, scores, strict=True)
    ]


def gain(before: Numbers, after: Numbers) -> Estimate:
    """Of AUROC, from the same pairs [n, 2], the harmless twin first."""

    def difference(rows: Numbers) -> float:
        return area(rows[:, 3], rows[:, 2]) - area(rows[:, 1], rows[:, 0])

    return bootstrap(difference, np.hstack([before, after]))


def _pairs(table: Table) -> Rows:
    """[n, 2]: the rows of the twins of the kinds kept apart, the harmless one first."""
    twins: dict[str, dict[bool, int]] = {}
    kinds = kept_kinds(table.prompts[i] for i in table.of("fit", "contrast-safe"))
    for i in table.of("fit"):
        if table.prompts[i].category in kinds:
            twins.setdefault(table.prompts[i].pair, {})[table.prompts[i].harm] = i
    return np.array([[own[False], own[True]] for own in twins.values()], dtype=np.intp)


if __name__ == "__main__":
    sys.exit(main())
