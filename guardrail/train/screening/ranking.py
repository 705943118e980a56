"""Ranks data sets by how far they would push a model along each trait: their mean projection difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from guardrail.statistics.intervals import Estimate
from guardrail.train.screening.results import Screened
from guardrail.train.screening.thresholds import Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A data set's place for one trait. `tied`: its interval meets that of the one before it.

    `above`: the share of its rows that are above the threshold, None without one.
    """

    name: str
    rows: int
    mean: Estimate | None
    above: Estimate | None
    tied: bool


def ranking(found: Sequence[Screened], limits: Thresholds | None = None) -> Mapping[str, Sequence[Ranked]]:
    """For each trait the data sets, the highest mean first; those without a mean last."""
    means = [one.means for one in found]
    shares = [limits.above(one) if limits else {} for one in found]
    rows = [one.counts.measured for one in found]
    return {
        trait: _ranked(
            [
                Ranked(
                    name=one.name,
                    rows=rows[i],
                    mean=means[i][trait],
                    above=shares[i].get(trait),
                    tied=False,
                )
                for i, one in enumerate(found)
            ]
        )
        for trait in (found[0].traits if found else ())
    }


def _ranked(places: Sequence[Ranked]) -> Sequence[Ranked]:
    ordered = sorted(
        places, key=lambda one: (one.mean is None, -(one.mean.value if one.mean else 0), one.name)
    )
    before: Sequence[Ranked | None] = [None, *ordered]
    return [replace(one, tied=_meet(earlier, one)) for earlier, one in zip(before, ordered, strict=False)]


def _meet(earlier: Ranked | None, one: Ranked) -> bool:
    if earlier is None or earlier.mean is None or one.mean is None:
        return False
    return earlier.mean.low <= one.mean.high
