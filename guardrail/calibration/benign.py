"""Benign statistics and the thresholds they give. Pure maths: no torch, no model, no policy.

For every (trait, layer) the calibration summarises the projections of benign prompts: mean, standard
deviation, percentiles, and both tails exactly. Thresholds for a false-positive rate are split-conformal: on
average, at most `fpr` of fresh benign prompts reach the ceil((n + 1)(1 - fpr))-th smallest of n benign
scores (Vovk 2012). Given the sample, the rate has the distribution Beta(n + 1 - r, r).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from guardrail.calibration.running import Statistic, highest, lowest
from guardrail.errors import CalibrationError
from guardrail.statistics.conformal import conformal_rank, rank_interval

TAIL_SHARE = 0.1
MARGIN = 1e-5
"""Relative margin, about a hundred times the float32 rounding error of a projection."""

Tail = Literal["upper", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benign:
    """The distribution of one projection on benign text. 101 `percentiles`; `low` and `high` ascend."""

    n: int
    mean: float
    sd: float
    percentiles: tuple[float, ...] = field(repr=False)
    low: tuple[float, ...] = field(repr=False)
    high: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        tables = (self.percentiles, self.low, self.high)
        finite = np.isfinite([self.mean, self.sd, *self.percentiles, *self.low, *self.high]).all()
        ascending = all(np.all(np.diff(table) >= 0) for table in tables)
        sizes = len(self.percentiles) == 101 and 0 < len(self.low) <= self.n and 0 < len(self.high) <= self.n
        if not (finite and ascending and sizes and self.sd > 0):
            raise CalibrationError("an entry is damaged")

    @classmethod
    def of(cls, projections: NDArray[np.floating]) -> Self:
        """Summarise projections [n]. Raises CalibrationError for too few, non-finite or constant ones."""
        values = np.sort(np.asarray(projections, dtype=np.float64))
        if values.ndim != 1 or len(values) < 2:
            raise CalibrationError("benign statistics need at least 2 projections")
        if not np.isfinite(values).all() or values[0] == values[-1]:
            raise CalibrationError("benign projections are constant or not finite")
        keep = max(1, math.ceil(TAIL_SHARE * len(values)))
        percentiles = np.percentile(values, np.arange(101))
        return cls(
            n=len(values),
            mean=float(values.mean()),
            sd=float(values.std(ddof=1)),
            percentiles=_rounded(percentiles),
            low=_rounded(values[:keep]),
            high=_rounded(values[-keep:]),
        )

    def percentile(self, percent: float) -> float:
        """The projection at a percentile, 0 to 100: exact in the tails, else interpolated."""
        position = percent / 100 * (self.n - 1)
        first = self.n - len(self.high)
        if position >= first:
            return float(np.interp(position, np.arange(first, self.n), self.high))
        if position <= len(self.low) - 1:
            return float(np.interp(position, np.arange(len(self.low)), self.low))
        return float(np.interp(percent, np.arange(101), self.percentiles))

    def _at_rank(self, rank: int, tail: Tail) -> float:
        """The projection of this rank, counted towards the tail; between percentiles if it was not kept."""
        beyond = self.n - rank
        values = self.high if tail == "upper" else tuple(reversed(self.low))
        if beyond < len(values):
            return values[-1 - beyond]
        return self.percentile(100 * rank / self.n if tail == "upper" else 100 * (1 - rank / self.n))

    def conformal(self, fpr: float, tail: Tail = "upper") -> float:
        """The projection beyond which at most `fpr` of fresh benign prompts fall, in expectation.

        A prompt exactly at a threshold fires. The value returned is therefore past the order statistic by
        more than rounding, so that a repeated benign prompt does not fire.
        Raises CalibrationError if n is too small for the rate.
        """
        rank = conformal_rank(self.n, fpr)
        edge = self._at_rank(rank, tail)
        margin = MARGIN * max(self.sd, abs(edge))
        return edge + margin if tail == "upper" else edge - margin

    def span(self, fpr: float, tail: Tail = "upper") -> tuple[float, float]:
        """The 95 % interval of `conformal`: where another sample may have put it. Open ends are infinite."""
        if tail == "lower":
            low, high = self._mirrored().span(fpr)
            return -high, -low
        first, last = rank_interval(self.n, fpr)
        return self._ranked(first), self._ranked(last) if last <= self.n else math.inf

    def _ranked(self, rank: int) -> float:
        return self.percentile(100 * (rank - 1) / (self.n - 1))

    def shares(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of the prompts in each bin between scores [k + 1]; the outer bins hold what is beyond."""
        beyond = np.array([self.beyond(self.mean + float(edge) * self.sd) for edge in edges]) / self.n
        beyond[0], beyond[-1] = 1.0, 0.0
        return np.maximum(0.0, -np.diff(beyond))

    def beyond(self, projection: float, tail: Tail = "upper") -> int:
        """How many of the n benign prompts reach this projection; exact in the tails, else interpolated.

        Of equal values outside the tails it counts up to 1 % of n too many, never too few.
        """
        if tail == "lower":
            return self._mirrored().beyond(-projection)
        if projection > self.high[0]:
            return sum(value >= projection for value in self.high)
        if projection <= self.low[-1]:
            return self.n - sum(value < projection for value in self.low)
        return max(self.n - self._below(projection), len(self.high))

    def _below(self, projection: float) -> int:
        """How many benign prompts lie below a projection between the tails, from the percentiles."""
        first = int(np.searchsorted(self.percentiles, projection))
        if len(set(self.percentiles[first : first + 2])) == 1:
            # a run of equal values, which begins somewhere after the percentile before it
            return math.floor((first - 1) / 100 * (self.n - 1)) + 1
        return round(self.n * float(np.interp(projection, self.percentiles, np.arange(101))) / 100)

    def _mirrored(self) -> Benign:
        """The same prompts on a probe that points the other way."""

        def turned(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(-value for value in reversed(values))

        return replace(
            self,
            mean=-self.mean,
            percentiles=turned(self.percentiles),
            low=turned(self.high),
            high=turned(self.low),
        )

    def standardise(self, projection: float) -> float:
        """The score: (projection - mean) / sd."""
        return (projection - self.mean) / self.sd


def _rounded(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(np.float32(value)) for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenignReplies:
    """One probe on benign replies: statistics of single tokens, of reply means, and of extremes.

    `highest` and `lowest` hold, for each running statistic (`mean 16`), its extreme value in each reply: a
    policy fires in a reply if the statistic reaches the threshold anywhere.
    """

    mean: float
    sd: float
    turn_mean: float
    turn_sd: float
    highest: Mapping[str, Benign] = field(repr=False)
    lowest: Mapping[str, Benign] = field(repr=False)

    def __post_init__(self) -> None:
        finite = np.isfinite([self.mean, self.sd, self.turn_mean, self.turn_sd]).all()
        if not (finite and self.sd > 0 and self.turn_sd > 0):
            raise CalibrationError("an entry is damaged")

    @classmethod
    def of(cls, replies: Sequence[NDArray[np.floating]], statistics: Iterable[tuple[Statistic, int]]) -> Self:
        """Summarise replies, each the projections of its tokens [tokens], for these (statistic, window).

        Raises CalibrationError for fewer than 2 replies, and for empty, constant or non-finite ones.
        """
        if len(replies) < 2 or not all(len(reply) for reply in replies):
            raise CalibrationError("at least 2 benign replies are needed, and none may be empty")
        whole = Benign.of(np.concatenate(replies))
        turns = Benign.of(np.asarray([np.mean(reply) for reply in replies]))
        kinds = list(statistics)
        return cls(
            mean=whole.mean,
            sd=whole.sd,
            turn_mean=turns.mean,
            turn_sd=turns.sd,
            highest={
                f"{s} {w}": Benign.of(np.asarray([highest(r, s, w) for r in replies])) for s, w in kinds
            },
            lowest={f"{s} {w}": Benign.of(np.asarray([lowest(r, s, w) for r in replies])) for s, w in kinds},
        )

    def extremes(self, statistic: str, tail: Tail) -> Benign:
        """The extremes of a running statistic on one side. Raises CalibrationError if they are missing."""
        table = self.highest if tail == "upper" else self.lowest
        if statistic not in table:
            known = ", ".join(table) or "none"
            raise CalibrationError(
                f"the calibration has no benign replies under `{statistic}`; it has: {known}"
            )
        return table[statistic]
