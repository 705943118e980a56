"""Sets thresholds by a clean set, for the difference alone or together with a judge's score.

`percentile`: the 95th percentile of the clean set, as in the paper (arXiv 2507.21509, appendix K).
`conformal`: the order statistic that keeps the expected share of clean rows above it at or below the share
asked for (split conformal). With a judge, a row is rejected if either score is above its own threshold; both
thresholds leave the same share of clean rows above them, as large a one as keeps what either rejects within
the share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from guardrail.errors import ConfigError
from guardrail.statistics.conformal import conformal_rank, fpr_interval, prompts_needed
from guardrail.statistics.intervals import Estimate
from guardrail.train.screening.results import Screened
from guardrail.train.screening.thresholds import Rule, Threshold, Thresholds

POINTS = 200
"""How many values of the clean tail are kept, for weights."""


def thresholds_of(clean: Screened, share: float = 0.05, rule: Rule = "percentile") -> Thresholds:
    """The thresholds that about `share` of clean rows exceed. Raises ConfigError for too few rows."""
    check_rows(clean.name, count := clean.counts.measured, share)
    made = Thresholds(
        traits={trait: _threshold(clean, i, share, rule) for i, trait in enumerate(clean.traits)},
        form=clean.form,
        vectors_sha256=clean.vectors_sha256,
        rule=rule,
        rate=Estimate(share, *fpr_interval(count, share)),
        joint=Estimate(0, 0, 1),
        clean=clean.name,
        clean_rows=count,
    )
    return replace(made, joint=made.rejected(clean))


def check_rows(name: str, count: int, share: float) -> None:
    """Raises ConfigError if so many clean rows cannot show such a share."""
    if not 0 < share < 1:
        raise ConfigError(f"the share of clean rows above a threshold is between 0 and 1, not {share}")
    if count < (needed := prompts_needed(share)):
        raise ConfigError(
            f"{name}: {count} clean rows are too few for a share of {share:g}; it takes {needed}"
        )


def _threshold(clean: Screened, i: int, share: float, rule: Rule) -> Threshold:
    layer, column = clean.directions[i].layer, clean.columns(clean.form)[i]
    ranked, judges = _Ranked.of(clean, column), _Ranked.of(clean, f"judge{i}")
    if judges.count:
        above = _both(ranked, judges, share, rule)
        return Threshold(
            layer=layer,
            difference=ranked.with_above(above),
            judge=judges.with_above(judges.part(above, ranked)),
            tail=ranked.tail(above),
            judge_tail=judges.tail(judges.part(above, ranked)),
        )
    if rule == "conformal":
        above = ranked.count - conformal_rank(ranked.count, share)
        return Threshold(layer=layer, difference=ranked.with_above(above), tail=ranked.tail(above))
    value = ranked.percentile(1 - share)
    tail = ranked.tail(clean.number_of(f"{column} > ?", value))
    return Threshold(layer=layer, difference=value, tail=tail)


def _both(ranked: _Ranked, judges: _Ranked, share: float, rule: Rule) -> int:
    """The most rows above each threshold that keep the rows above either of them within the share."""
    extra = rule == "conformal"
    allowed = math.floor(share * (ranked.count + extra) + 1e-9) - extra
    low, high = 0, allowed
    while low < high:
        middle = (low + high + 1) // 2
        values = ranked.with_above(middle), judges.with_above(judges.part(middle, ranked))
        rejected = ranked.clean.number_of(f"{ranked.column} > ? OR {judges.column} > ?", *values)
        low, high = (middle, high) if rejected <= allowed else (low, middle - 1)
    return low


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A column of the clean set by rank. `count`: how many rows have a value."""

    clean: Screened
    column: str
    count: int

    @classmethod
    def of(cls, clean: Screened, column: str) -> Self:
        """The rows that have a value there."""
        return cls(clean, column, clean.number_of(f"{column} IS NOT NULL"))

    def part(self, above: int, other: _Ranked) -> int:
        """As many of these rows as `above` is of another column's."""
        return math.floor(above * self.count / other.count)

    def at(self, rank: int) -> float:
        """The value of a rank, from 0."""
        (found,) = self.clean.store.rows(
            f"SELECT {self.column} AS v FROM rows WHERE problem IS NULL AND v IS NOT NULL "
            "ORDER BY v LIMIT 1 OFFSET ?",
            min(max(rank, 0), self.count - 1),
        )
        return float(found[0])

    def with_above(self, above: int) -> float:
        """The value that so many rows exceed, if no two are equal."""
        return self.at(self.count - 1 - above)

    def percentile(self, share: float) -> float:
        """The value below which a share lies, between two rows in proportion (as numpy does)."""
        place = share * (self.count - 1)
        low, high = self.at(math.floor(place)), self.at(math.ceil(place))
        return low + (high - low) * (place - math.floor(place))

    def tail(self, above: int) -> tuple[float, ...]:
        """At most POINTS of the highest `above` values."""
        ranks = np.unique(np.linspace(self.count - above, self.count - 1, min(above, POINTS)).round())
        return tuple(self._at_ranks([int(rank) for rank in ranks]))

    def _at_ranks(self, ranks: Sequence[int]) -> Iterator[float]:
        if not ranks:
            return
        first, wanted = ranks[0], set(ranks)
        found = self.clean.store.each(
            f"SELECT {self.column} AS v FROM rows WHERE problem IS NULL AND v IS NOT NULL "
            "ORDER BY v LIMIT -1 OFFSET ?",
            first,
        )
        yield from (float(value) for rank, (value,) in enumerate(found, first) if rank in wanted)
