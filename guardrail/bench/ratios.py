"""Turns the times of alternating pairs into a ratio and added milliseconds, with bootstrap intervals.

The median of the pairwise ratios; percentile bootstrap over pairs (Efron 1979) with a fixed seed, so that the
same times always give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64] | Sequence[float]

RESAMPLES, SEED, LEVEL = 5000, 0, 95.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds, one entry per pair."""

    guarded: tuple[float, ...]
    bare: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A median over pairs with its 95 % bootstrap interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """The distribution of one side's milliseconds."""

    p50: float
    p95: float
    p99: float


def ratio(timings: Timings) -> Interval:
    """Guarded / bare, pair by pair."""
    return interval(np.asarray(timings.guarded) / np.asarray(timings.bare))


def added(timings: Timings) -> Interval:
    """Guarded - bare in milliseconds, pair by pair."""
    return interval(np.asarray(timings.guarded) - np.asarray(timings.bare))


def interval(values: Values) -> Interval:
    """The median and the percentiles of the medians of `RESAMPLES` resamples."""
    data = np.asarray(values, dtype=np.float64)
    rows = np.random.default_rng(SEED).integers(len(data), size=(RESAMPLES, len(data)))
    tail = (100.0 - LEVEL) / 2
    low, high = np.percentile(np.median(data[rows], axis=1), [tail, 100.0 - tail])
    return Interval(median=float(np.median(data)), low=float(low), high=float(high))


def percentiles(values: Values) -> Percentiles:
    """p50, p95 and p99."""
    p50, p95, p99 = np.percentile(np.asarray(values, dtype=np.float64), [50, 95, 99])
    return Percentiles(p50=float(p50), p95=float(p95), p99=float(p99))
