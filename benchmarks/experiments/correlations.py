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
    rng, draws = np.random.default_rng(SEED), list[float]()
    for _ in range(RESAMPLES):
        runs = rng.integers(0, len(known), len(known))
        prompts = rng.integers(0, shown.shape[1], shown.shape[1])
        draws.append(pearson(known[runs], shown[np.ix_(runs, prompts)].mean(axis=1)) or 0.0)
    low, high = np.percentile(draws, (100 * TAIL, 100 * (1 - TAIL)))
    return Estimate(value, float(low), float(high))


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
