"""Estimates with 95 % intervals: bootstrap over prompts, exact (Clopper-Pearson) for rates, t for clusters.

Each stratum is resampled separately, so class sizes stay the same. Seeds are fixed: the same data gives the
same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guardrail.statistics.conformal import observed_fpr

Numbers = NDArray[np.float64]
RESAMPLES = 1000
SEED = 0
TAIL = 0.025
"""The probability on each side of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


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
    return bootstrap(lambda x: float(x.mean()), numbers(values))


def column_means(values: ArrayLike) -> list[Estimate]:
    """The mean of each column of [n, k]; rows are resampled, the same ones for every column."""
    rows, rng = numbers(values), np.random.default_rng(SEED)
    draws = np.stack([rows[rng.integers(0, len(rows), len(rows))].mean(axis=0) for _ in range(RESAMPLES)])
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
