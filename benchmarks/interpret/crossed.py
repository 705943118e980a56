"""Intervals for pairs that share questions and words: both are resampled (Owen 2007, the pigeonhole bootstrap).

A pair counts as often as its question was drawn, times as often as its two words were. The interval says how
a number would differ with other questions *and* other words; it is wider than one over pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.interpret.pool import parts
from guardrail.statistics.intervals import RESAMPLES, SEED, TAIL, Estimate, Numbers

Statistic = Callable[[Numbers], float]
"""Of the means of columns."""


def crossed(names: Sequence[str], columns: Sequence[Numbers], statistic: Statistic) -> Estimate:
    """A statistic of the columns' means over pairs. columns: one value for each of the named pairs."""
    values, rng = np.stack(columns, axis=1).astype(float), np.random.default_rng(SEED)
    questions, words = _numbered(names, 1), _numbered(names, 2)
    draws: list[float] = []
    while len(draws) < RESAMPLES:
        weights = _drawn(rng, questions) * _drawn(rng, words)
        if weights.any():
            draws.append(statistic(np.average(values, axis=0, weights=weights)))
    low, high = np.percentile(draws, (100 * TAIL, 100 * (1 - TAIL)))
    return Estimate(statistic(values.mean(axis=0)), float(low), float(high))


def mean(names: Sequence[str], column: Numbers) -> Estimate:
    """The mean over pairs."""
    return crossed(names, [column], lambda means: float(means[0]))


def _numbered(names: Sequence[str], part: int) -> Numbers:
    """The number of each pair's question (1) or words (2), which belong to a kind."""
    keys = [(parts(name)[0], parts(name)[part]) for name in names]
    return np.unique(np.array(keys), axis=0, return_inverse=True)[1].reshape(-1)


def _drawn(rng: np.random.Generator, clusters: Numbers) -> Numbers:
    """How often the cluster of each pair was drawn."""
    count = int(clusters.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count))[clusters]
