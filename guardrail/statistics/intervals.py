"""Estimates with 95 % intervals: bootstrap over prompts, exact (Clopper-Pearson) for rates, t for clusters.

Each stratum is resampled separately, so class sizes stay the same. Seeds are fixed: the same data gives the
same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guardrail.statistics.conformal import observed_fpr

Numbers = NDArray[np.float64]
RESAMPLES = 1000
SEED = 0
LARGEST = 1_000_000
"""Numbers that are resampled at once."""
TAIL = 0.025
"""The probability on each side of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """`0.912 [0.880, 0.940]` for `.3f`: all three numbers in one form."""
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]" if form else str(self)

    def times(self, factor: float) -> Estimate:
        """In another unit. The factor is above 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def numbers(values: ArrayLike) -> Numbers:
    """Float64."""
    return np.asarray(values, dtype=np.float64)


def bootstrap(statistic: Callable[..., float], *strata: NDArray[np.generic]) -> Estimate:
    """`statistic(*strata)` with the percentile interval over resampled rows of each stratum (Efron 1979)."""
    rng = np.random.default_rng(SEED)
    draws = [
        statistic(*(rows[rng.integers(0, len(rows), len(rows))] for rows in strata)) for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, (100 * TAIL, 100 * (1 - TAIL)))
    return Estimate(statistic(*strata), float(low), float(high))


def mean(values: ArrayLike) -> Estimate:
    """The mean."""
    rows = numbers(values)
    draws = np.concatenate([drawn.reshape(len(drawn), -1).mean(axis=1) for drawn in _drawn(rows)])
    low, high = np.percentile(draws, (100 * TAIL, 100 * (1 - TAIL)))
    return Estimate(float(rows.mean()), float(low), float(high))


def _drawn(rows: Numbers) -> Iterator[Numbers]:
    """Resampled rows [draws, n, ...], some of all draws at a time, because that many copies are large."""
    rng, count = np.random.default_rng(SEED), len(rows)
    together = max(1, LARGEST // max(1, rows.size))
    for start in range(0, RESAMPLES, together):
        yield rows[rng.integers(0, count, (min(together, RESAMPLES - start), count))]


def column_means(values: ArrayLike) -> list[Estimate]:
    """The mean of each column of [n, k]; rows are resampled, the same ones for every column."""
    rows = numbers(values)
    draws = np.concatenate([drawn.mean(axis=1) for drawn in _drawn(rows)])
    low, high = np.percentile(draws, (100 * TAIL, 100 * (1 - TAIL)), axis=0)
    return [Estimate(*map(float, one)) for one in zip(rows.mean(axis=0), low, high, strict=True)]


def clustered_mean(values: ArrayLike, clusters: ArrayLike) -> Estimate | None:
    """The mean of the clusters' means, with Student's interval over clusters; None for fewer than two.

    Values of one cluster (replies to one question) are not independent, so only their mean counts.
    """
    # lazily: vector files hold estimates, and loading them takes no third of a second more
    from scipy.special import stdtrit

    values, clusters = numbers(values), np.asarray(clusters)
    means = numbers([values[clusters == one].mean() for one in np.unique(clusters)])
    if len(means) < 2:
        return None
    half = float(stdtrit(len(means) - 1, 1 - TAIL) * means.std(ddof=1) / np.sqrt(len(means)))
    middle = float(means.mean())
    return Estimate(middle, middle - half, middle + half)


def rate(hits: Sequence[bool] | NDArray[np.bool_]) -> Estimate:
    """A share, with the Clopper-Pearson interval."""
    return Estimate(*observed_fpr(int(np.sum(hits)), len(hits)))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """The first number less the second, from their intervals alone (MOVER; Zou and Donner 2008, equation 4).

    Square-and-add, as if they were independent: too wide for means over the same items.
    """
    middle = one.value - other.value
    low = np.hypot(one.value - one.low, other.high - other.value)
    high = np.hypot(one.high - one.value, other.value - other.low)
    return Estimate(middle, float(middle - low), float(middle + high))


def paired_difference(before: Sequence[bool], after: Sequence[bool]) -> Estimate:
    """The share after less that before, of the same items (Newcombe 1998, method 10).

    Square-and-add of Wilson's intervals with the correlation of the pairs: it has a width even if no item
    changed.
    """
    first, second = np.asarray(before, bool), np.asarray(after, bool)
    (p, p_low, p_high), (q, q_low, q_high) = _wilson(second), _wilson(first)
    phi = _phi(second, first)
    down, up = (p - p_low, q_high - q), (p_high - p, q - q_low)
    low, high = (np.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b)) for a, b in (down, up))
    return Estimate(p - q, float(p - q - low), float(p - q + high))


def _wilson(hits: NDArray[np.bool_]) -> tuple[float, float, float]:
    """(share, low, high) of Wilson's interval."""
    from scipy.special import ndtri

    n, p, z = len(hits), float(hits.mean()), float(ndtri(1 - TAIL))
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n))


def _phi(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Newcombe's correlation of two rows of hits: with a continuity correction, 0 if either is constant."""
    both, first, second, none = (int(np.sum(x & y)) for x in (a, ~a) for y in (b, ~b))
    margins = (both + first) * (second + none) * (both + second) * (first + none)
    if not margins:
        return 0.0
    found = both * none - first * second
    return (max(found - len(a) / 2, 0.0) if found > 0 else float(found)) / float(np.sqrt(margins))
