"""Intervals for pairs that share questions and words: both are resampled (Owen 2007, pigeonhole bootstrap).

A pair counts as often as its question was drawn, times as often as its two words were. The interval says how
a number would differ with other questions *and* other words; it is wider than one over pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from benchmarks.interpret.pool import parts
from guardrail.statistics.intervals import RESAMPLES, SEED, TAIL, Estimate
from guardrail.types import Array

Statistic = Callable[[Array], Array]
"""Of means of columns, [..., columns]."""


def crossed(names: Sequence[str], columns: Sequence[Array], statistic: Statistic) -> Estimate:
    """A statistic of the columns' means over pairs. columns: one value for each of the named pairs."""
    values, weights = np.stack(columns, axis=1).astype(float), _weights(tuple(names))
    with np.errstate(invalid="ignore"):
        found = statistic(weights @ values / weights.sum(axis=1, keepdims=True))
    # a draw may hold no pair of one side of a comparison
    low, high = np.nanpercentile(found, (100 * TAIL, 100 * (1 - TAIL)))
    return Estimate(float(statistic(values.mean(axis=0))), float(low), float(high))


def mean(names: Sequence[str], column: Array) -> Estimate:
    """The mean over pairs."""
    return crossed(names, [column], first)


def first(means: Array) -> Array:
    """The mean of the first column."""
    return means[..., 0]


@cache
def _weights(names: tuple[str, ...]) -> Array:
    """How often each pair counts, [draws, pairs]."""
    rng = np.random.default_rng(SEED)
    made = _drawn(rng, _numbered(names, 1)) * _drawn(rng, _numbered(names, 2))
    return made[made.any(axis=1)]


def _numbered(names: Sequence[str], part: int) -> Array:
    """The number of each pair's question (1) or words (2), which belong to a kind."""
    keys = [(parts(name)[0], parts(name)[part]) for name in names]
    return np.unique(np.array(keys), axis=0, return_inverse=True)[1].reshape(-1)


def _drawn(rng: np.random.Generator, clusters: Array) -> Array:
    """How often the cluster of each pair was drawn, [draws, pairs]."""
    count = int(clusters.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)[:, clusters]
