"""Detection metrics: AUROC, true-positive rate at a false-positive rate, average precision.

High scores are positive. With perfect separation the bootstrap interval would have no width, so an exact
bound replaces it.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from guardrail.statistics.intervals import TAIL, Estimate, Numbers, bootstrap, rate

FPR = 0.01


def auroc(positive: Numbers, negative: Numbers) -> Estimate:
    """The chance that a positive scores above a negative, counting ties half; both sides are resampled.

    If all pairs are ordered the same way, so are min(n, m) pairs that share no prompt. At AUROC a this has
    probability a^min(n, m); the bound is the a for which it is 2.5 %.
    """
    _, ranks = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    sides = ranks[: len(positive)], ranks[len(positive) :]
    found = bootstrap(partial(_area_of_ranks, ranks.max() + 1), *sides)
    bound = TAIL ** (1 / min(len(positive), len(negative)))
    if found.value == 1.0:
        return Estimate(1.0, bound, 1.0)
    return Estimate(0.0, 0.0, 1 - bound) if found.value == 0.0 else found


def area(positive: Numbers, negative: Numbers) -> float:
    """AUROC without an interval."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def _area_of_ranks(distinct: int, positive: NDArray[np.intp], negative: NDArray[np.intp]) -> float:
    """`area` of ranks below `distinct`: counting them takes less time than sorting every resample."""
    counts = np.bincount(negative, minlength=distinct)
    below_twice = 2 * np.cumsum(counts) - counts
    return float(below_twice[positive].mean() / (2 * len(negative)))


def areas(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> Numbers:
    """[k]: the AUROC of each column of [n, k] and [m, k]."""
    n, m = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]), axis=0)[:n]
    return (ranks.sum(axis=0) - n * (n + 1) / 2) / (n * m)


def tpr_at_fpr(positive: Numbers, negative: Numbers, fpr: float = FPR) -> Estimate:
    """The share of positives above the lowest threshold that at most `fpr` of the negatives reach.

    Every resample computes its own threshold. At 0 and 1 the interval is Clopper-Pearson.
    """
    found = bootstrap(partial(share_above, fpr=fpr), positive, negative)
    return rate(positive > threshold_at(negative, fpr)) if found.value in (0.0, 1.0) else found


def share_above(positive: Numbers, negative: Numbers, fpr: float = FPR) -> float:
    """`tpr_at_fpr` without an interval."""
    return float((positive > threshold_at(negative, fpr)).mean())


def threshold_at(negative: Numbers, fpr: float = FPR) -> float:
    """The lowest value that at most `fpr` of the negatives exceed."""
    allowed = int(fpr * len(negative) + 1e-9)
    return float(np.sort(negative)[-1 - min(allowed, len(negative) - 1)])


def average_precision(positive: Numbers, negative: Numbers) -> Estimate:
    """The area under precision against recall, as a step function; depends on the share of positives."""
    return bootstrap(precision, positive, negative)


def precision(positive: Numbers, negative: Numbers) -> float:
    """Average precision without an interval: the mean over positives of the precision at their score."""
    hits, misses = np.sort(positive), np.sort(negative)
    above = len(hits) - np.searchsorted(hits, hits, side="left")
    false = len(misses) - np.searchsorted(misses, hits, side="left")
    return float((above / (above + false)).mean())


def curve(positive: Numbers, negative: Numbers) -> tuple[Numbers, Numbers]:
    """(false-positive rates, true-positive rates) of every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    shares = [
        1 - np.searchsorted(np.sort(side), thresholds, side="left") / len(side)
        for side in (negative, positive)
    ]
    false, true = (np.concatenate([[0.0], share]) for share in shares)
    return false, true
