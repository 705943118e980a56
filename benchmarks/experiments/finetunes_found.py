"""What the 24 finetunes show: which numbers, before and after training, go with the traits that came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.experiments import correlations, finetunes, predictions
from benchmarks.experiments.families import FAMILIES
from benchmarks.experiments.runs import Found, Runs
from guardrail.demo.world import TRAITS
from guardrail.statistics.intervals import Estimate, Numbers, mean

FEW = 16
"""Rows of the cheapest form."""


@dataclass(frozen=True, slots=True)
class Table:
    """Every finetune with its shift and its data; numbers are [runs, traits] or [runs, prompts]."""

    names: Sequence[str]
    done: Runs
    shifts: Runs
    screens: Runs

    def scores(self, trait: str) -> Numbers:
        """[runs, prompts]."""
        return np.array([self.done[name]["traits"][trait] for name in self.names])

    def means(self) -> Numbers:
        """[runs, traits]: mean scores."""
        return np.stack([self.scores(trait).mean(axis=1) for trait in TRAITS], axis=1)

    def shift(self, part: str = "shift") -> Numbers:
        """[runs, traits] at each trait's layer; `own`: the part that no other trait's vector shares."""
        return np.array([[self.shifts[n][part][t]["value"] for t in TRAITS] for n in self.names])

    def data(self, form: str, rows: int | None = None) -> Numbers:
        """[runs, traits]: mean projection differences of the data, of its first measured rows."""
        return np.array([self._data(self.screens[name], form, rows) for name in self.names])

    def _data(self, found: Found, form: str, rows: int | None) -> list[float]:
        values = np.array(found["rows"][form])[:rows].mean(axis=0)
        return [float(values[list(found["traits"]).index(trait)]) for trait in TRAITS]

    def only(self, keep: Callable[[str], bool]) -> Table:
        """The runs whose name is kept."""
        return Table([n for n in self.names if keep(n)], self.done, self.shifts, self.screens)


def table(kind: str) -> Table:
    """The finetunes of the experiment that are done, along the vectors of one kind."""
    done, shifts, screens = finetunes.journal(), predictions.shifts(kind), predictions.screens(kind)
    names = [name for name in done if name in shifts and name in screens and name.split("/")[1] != "none"]
    return Table(names, done, shifts, screens)


PREDICTORS: Mapping[str, Callable[[Table], Numbers]] = {
    "shift": lambda t: t.shift(),
    "shift, own part": lambda t: t.shift("own"),
    "shift, without what runs share": lambda t: correlations.without_shared(t.shift()),
    "data, exact": lambda t: t.data("exact"),
    "data, last prompt token": lambda t: t.data("last-prompt"),
    f"data, exact, {FEW} rows": lambda t: t.data("exact", FEW),
    f"data, last prompt token, {FEW} rows": lambda t: t.data("last-prompt", FEW),
}
"""What a trait score is predicted from, at each trait's own column."""


def found() -> dict[str, object]:
    """All of it, ready to be saved."""
    every = table("shipped")
    return {
        "traits": TRAITS,
        "runs": {name: _run(every, name) for name in [*_references(every.done), *every.names]},
        "vectors": {kind: along(table(kind)) for kind in predictions.SUFFIXES},
        "cost": {name: predictions.costs()[name] for name in predictions.costs()},
    }


def along(every: Table) -> dict[str, object] | None:
    """What one kind of vectors predicts; None if too few runs are done."""
    if len(every.names) < correlations.FEWEST:
        return None
    without = {
        trait: every.only(lambda n, t=trait: t not in FAMILIES[n.split("/")[0]].traits) for trait in TRAITS
    }
    shift = every.shift()
    return {
        "runs": len(every.names),
        "r": {name: {t: _r(every, made, t) for t in TRAITS} for name, made in PREDICTORS.items()},
        "r without own data": {
            name: {t: _r(without[t], made, t) for t in TRAITS} for name, made in PREDICTORS.items()
        },
        "data against shift": {
            form: {t: _against_shift(every, form, t) for t in TRAITS} for form in ("exact", "last-prompt")
        },
        "cross": correlations.cross(shift, every.means()),
        "cross without shared": correlations.cross(correlations.without_shared(shift), every.means()),
        "shared": correlations.shared_share(shift),
    }


def _references(done: Runs) -> list[str]:
    return [name for name in done if name.split("/")[1] == "none"]


def _run(every: Table, name: str) -> dict[str, object]:
    one = every.done[name]
    right = [hit for hits in one["right"].values() for hit in hits]
    known: dict[str, object] = {
        "traits": {trait: asdict(mean(one["traits"][trait])) for trait in TRAITS},
        "coherence": asdict(mean(one["coherence"])),
        "capability": asdict(mean(100 * np.array(right))),
        "right": {kind: 100 * float(np.mean(hits)) for kind, hits in one["right"].items()},
    }
    if name in every.shifts:
        known["shift"] = {t: every.shifts[name]["shift"][t] for t in TRAITS}
    if name in every.screens:
        known["data"] = {t: every.screens[name]["exact"][t] for t in TRAITS}
    return known


def _r(part: Table, made: Callable[[Table], Numbers], trait: str) -> object:
    if len(part.names) < correlations.FEWEST:
        return None
    estimate = correlations.over_runs(made(part)[:, TRAITS.index(trait)], part.scores(trait))
    return _plain(estimate)


def _against_shift(every: Table, form: str, trait: str) -> object:
    column = TRAITS.index(trait)
    shifts = every.shift()[:, [column]]
    return _plain(correlations.over_runs(every.data(form)[:, column], shifts))


def _plain(estimate: Estimate | None) -> object:
    return asdict(estimate) if estimate else None
