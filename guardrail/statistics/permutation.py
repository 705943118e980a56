"""Permutation tests of many columns at once, effect sizes, and control of the false-discovery rate.

A column is one thing that is tested (a head, say); the same permutations serve all columns. Seeds are fixed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guardrail.statistics.intervals import SEED, Numbers, numbers

PERMUTATIONS = 20_000
TOGETHER = 1000
"""Permutations that are held in memory at once."""


def two_sample(first: ArrayLike, second: ArrayLike) -> Numbers:
    """[k]: two-sided p of the difference of means of [n, k] and [m, k], by exchanging rows.

    With the observed order among the permutations, so that no p is 0 (Phipson and Smyth 2010).
    """
    a, b = numbers(first), numbers(second)
    rows, count = np.concatenate([a, b]), len(a)
    rows = rows - rows.mean(axis=0)
    # the sum over the first rows says as much as the difference of means: all rows sum up to 0
    rng = np.random.default_rng(SEED)
    chosen = np.argsort(rng.random((PERMUTATIONS, len(rows))), axis=1) < count
    return _shares(chosen.astype(np.float64), rows, rows[:count].sum(axis=0))


def one_sample(differences: ArrayLike) -> Numbers:
    """[k]: two-sided p of the mean of [n, k] against 0, by changing the signs of rows."""
    rows = numbers(differences)
    signs = np.random.default_rng(SEED).choice((-1.0, 1.0), (PERMUTATIONS, len(rows)))
    return _shares(signs, rows, rows.sum(axis=0))


def _shares(weights: Numbers, rows: Numbers, observed: Numbers) -> Numbers:
    """The share of weightings whose sum is as far from 0 as the observed one, which counts as one more."""
    limit = np.abs(observed) * (1 - 1e-9) - 1e-12 * np.abs(rows).sum(axis=0)
    reached = np.zeros(rows.shape[1])
    for start in range(0, len(weights), TOGETHER):
        reached += (np.abs(weights[start : start + TOGETHER] @ rows) >= limit).sum(axis=0)
    return (reached + 1) / (len(weights) + 1)


def hedges_g(first: ArrayLike, second: ArrayLike) -> Numbers:
    """[k]: the difference of means of [n, k] and [m, k] in pooled standard deviations, corrected for n.

    Hedges 1981. 0 for columns that are constant.
    """
    a, b = numbers(first), numbers(second)
    free = len(a) + len(b) - 2
    pooled = np.sqrt(((len(a) - 1) * a.var(axis=0, ddof=1) + (len(b) - 1) * b.var(axis=0, ddof=1)) / free)
    return (1 - 3 / (4 * free - 1)) * _ratio(a.mean(axis=0) - b.mean(axis=0), pooled)


def paired_d(differences: ArrayLike) -> Numbers:
    """[k]: the mean of [n, k] in standard deviations; 0 for columns that are constant."""
    rows = numbers(differences)
    return _ratio(rows.mean(axis=0), rows.std(axis=0, ddof=1))


def _ratio(over: Numbers, under: Numbers) -> Numbers:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


def false_discovery(p: ArrayLike) -> Numbers:
    """p of the same shape, adjusted for the number of tests (Benjamini and Hochberg 1995)."""
    # lazily, because scipy.stats takes a third of a second
    from scipy.stats import false_discovery_control

    values = numbers(p)
    adjusted: NDArray[np.float64] = false_discovery_control(values.ravel())
    return adjusted.reshape(values.shape)
