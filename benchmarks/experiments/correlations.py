"""Pure statistics of the experiments: correlations over finetunes, and what traits share."""

from __future__ import annotations

import numpy as np

from guardrail.statistics.correlation import pearson
from guardrail.statistics.intervals import RESAMPLES, SEED, TAIL, Estimate, Numbers, mean

FEWEST = 4
"""The fewest finetunes for a correlation."""


def over_runs(known: Numbers, shown: Numbers) -> Estimate | None:
    """r of `known` [runs] with the mean of `shown` [runs, prompts], runs and prompts resampled.

    All runs are evaluated on the same prompts, so a resample takes the same prompts for all of them. None for
    fewer than FEWEST runs, and where something is constant.
    """
    if len(known) < FEWEST or (value := pearson(known, shown.mean(axis=1))) is None:
        return None
    rng, (count, asked) = np.random.default_rng(SEED), shown.shape
    runs = rng.integers(0, count, (RESAMPLES, count))
    prompts = [np.bincount(rng.integers(0, asked, asked), minlength=asked) for _ in range(RESAMPLES)]
    means = np.stack(prompts) @ shown.T / asked
    draws = _pearsons(known[runs], np.take_along_axis(means, runs, axis=1))
    low, high = np.percentile(draws, (100 * TAIL, 100 * (1 - TAIL)))
    return Estimate(value, float(low), float(high))


def _pearsons(first: Numbers, second: Numbers) -> Numbers:
    """r of each row with the same row of the other; 0 where one is constant."""
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (first, second))
    sizes = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.where(sizes > 1e-12, (a * b).sum(axis=1) / np.maximum(sizes, 1e-12), 0.0)


def cross(known: Numbers, shown: Numbers) -> list[list[float]]:
    """[k][k]: r of every column of `known` [runs, k] with every one of `shown`; 0 if undefined."""
    return [[pearson(a, b) or 0.0 for b in shown.T] for a in known.T]


def without_shared(values: Numbers) -> Numbers:
    """[runs, k]: standardised columns without their first principal component, which all of them share."""
    centred = values - values.mean(axis=0)
    scaled = centred / np.maximum(centred.std(axis=0), 1e-12)
    left, sizes, right = np.linalg.svd(scaled, full_matrices=False)
    return scaled - sizes[0] * np.outer(left[:, 0], right[0])


def shared_share(values: Numbers) -> float:
    """The part of the variance of standardised columns that their first principal component has."""
    centred = values - values.mean(axis=0)
    sizes = np.linalg.svd(centred / np.maximum(centred.std(axis=0), 1e-12), compute_uv=False)
    return float(sizes[0] ** 2 / (sizes**2).sum())


def paired(first: Numbers, second: Numbers) -> Estimate:
    """The mean difference of two rows of numbers about the same items, items resampled."""
    return mean(first - second)
