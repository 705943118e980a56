"""What a screening found. Numbers are computed from the file of rows when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from guardrail.errors import ConfigError
from guardrail.statistics.conformal import observed_fpr
from guardrail.statistics.intervals import Estimate, Numbers
from guardrail.statistics.streams import Stream
from guardrail.train.screening.data import Data
from guardrail.train.screening.directions import Direction
from guardrail.train.screening.meter import FORMS, Form
from guardrail.train.screening.store import Cost, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows that were measured, and those that were set aside, by what is wrong with them."""

    measured: int
    aside: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """The rows of one source: their number, and the mean difference of each trait."""

    source: str
    rows: int
    means: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """A row with a high difference, and what the judge said of it, if anything."""

    number: int
    source: str
    difference: float
    judged: float | None = None


@dataclass(frozen=True, kw_only=True)
class Screened:
    """One data set, screened. `form` is how its rows were measured."""

    data: Data
    store: Store = field(repr=False)
    directions: Sequence[Direction]
    form: Form
    vectors_sha256: str
    subset: int | None = None
    judge: str | None = None

    @property
    def traits(self) -> tuple[str, ...]:
        """The traits, in the order of columns."""
        return tuple(one.trait for one in self.directions)

    @property
    def name(self) -> str:
        """The name of the data."""
        return self.data.path.name

    @property
    def cost(self) -> Cost:
        """What was spent, by all runs together."""
        return self.store.cost

    @property
    def counts(self) -> Counts:
        """How many rows there are of each kind."""
        found = dict(self.store.rows("SELECT kind, count(*) FROM rows GROUP BY kind ORDER BY kind"))
        return Counts(measured=found.pop(None, 0), aside=found)

    @property
    def unusable(self) -> str:
        """Why no row at all could be screened, with a row for each reason; empty if any row was."""
        if self.counts.measured:
            return ""
        said = "; ".join(f"row {number}: {reason}" for number, _, reason in self.first_problems(1))
        return f"{self.data.path}: no row could be screened: {said}"

    @property
    def unjudged(self) -> int:
        """How many rows the judge gave no score for any trait; 0 without a judge."""
        missing = " AND ".join(f"judge{i} IS NULL" for i in range(len(self.traits)))
        return self.number_of(missing) if self.judge else 0

    @property
    def means(self) -> Mapping[str, Estimate | None]:
        """The data set's projection difference, the mean over rows, by trait; None for fewer than two."""
        return self.means_of(self.form)

    def means_of(self, form: Form) -> Mapping[str, Estimate | None]:
        """As `means`, in one of the forms that the rows have."""
        found = Stream.of(self.store.columns(*self.columns(form)))
        return {trait: found.mean(i) if found.count else None for i, trait in enumerate(self.traits)}

    @property
    def agreement(self) -> Mapping[str, Estimate | None]:
        """r over rows between the exact difference and its last-prompt approximation, by trait."""
        if self.form != "exact":
            return {}
        found = Stream.of(self.store.columns(*self.columns("exact"), *self.columns("last-prompt")))
        shift = len(self.traits)
        return {trait: found.correlation(i, i + shift) for i, trait in enumerate(self.traits)}

    @property
    def numbers(self) -> Sequence[int]:
        """The numbers of the measured rows, as in `differences`."""
        return [int(n) for block in self.store.columns("number") for n in block[:, 0]]

    def differences(self, form: Form | None = None) -> Numbers:
        """[rows, traits]: every measured row, in memory."""
        blocks = list(self.store.columns(*self.columns(form or self.form)))
        return np.concatenate(blocks) if blocks else np.zeros((0, len(self.traits)))

    def judged(self) -> Numbers:
        """[rows, traits]: the judge's scores, in memory; NaN where it gave none."""
        blocks = list(self.store.columns(*(f"judge{i}" for i in range(len(self.traits)))))
        return np.concatenate(blocks) if blocks else np.zeros((0, len(self.traits)))

    def columns(self, form: Form) -> list[str]:
        """Expressions for the differences. Raises ConfigError for a form that was not measured."""
        if form not in FORMS or (form == "exact" and self.form != "exact"):
            raise ConfigError(f"{self.name} was not measured in the form `{form}`")
        other = "base" if form == "exact" else "last"
        return [f"reply{i} - {other}{i}" for i in range(len(self.traits))]

    def number_of(self, condition: str, *values: float) -> int:
        """How many measured rows meet a condition on their columns."""
        (found,) = self.store.rows(
            f"SELECT count(*) FROM rows WHERE problem IS NULL AND ({condition})", *values
        )
        return found[0]

    def share(self, condition: str, values: Sequence[float]) -> Estimate:
        """The share of measured rows that meet a condition. Without any rows, 0 with an interval to 1."""
        count = self.counts.measured
        met = self.number_of(condition, *values)
        return Estimate(*observed_fpr(met, count)) if count else Estimate(0.0, 0.0, 1.0)

    def extent(self, trait: int) -> tuple[float, float] | None:
        """The lowest and the highest difference of a trait, None without rows."""
        column = self.columns(self.form)[trait]
        ((low, high),) = self.store.rows(
            f"SELECT min({column}), max({column}) FROM rows WHERE problem IS NULL"
        )
        return None if low is None else (low, high)

    def first_problems(self, most: int) -> list[tuple[int, str, str]]:
        """(number, kind, reason) of the first rows of each kind, kind by kind."""
        return self.store.rows(
            "SELECT number, kind, problem FROM (SELECT *, row_number() OVER (PARTITION BY kind "
            "ORDER BY number) AS place FROM rows WHERE problem IS NOT NULL) WHERE place <= ? "
            "ORDER BY kind, number",
            most,
        )

    def by_source(self, most: int = 50) -> list[SourceRow]:
        """The sources with the most rows."""
        means = ", ".join(f"avg({column})" for column in self.columns(self.form))
        found = self.store.rows(
            f"SELECT source, count(*) AS n, {means} FROM rows WHERE problem IS NULL "
            "GROUP BY source ORDER BY n DESC, source LIMIT ?",
            most,
        )
        return [
            SourceRow(source=source, rows=count, means=dict(zip(self.traits, rest, strict=True)))
            for source, count, *rest in found
        ]

    def worst(self, trait: str, most: int = 10) -> list[Worst]:
        """The rows with the highest differences."""
        i = self.traits.index(trait)
        column = self.columns(self.form)[i]
        found = self.store.rows(
            f"SELECT number, source, {column}, judge{i} FROM rows WHERE problem IS NULL "
            f"ORDER BY {column} DESC, number LIMIT ?",
            most,
        )
        return [Worst(number=n, source=s, difference=d, judged=j) for n, s, d, j in found]
