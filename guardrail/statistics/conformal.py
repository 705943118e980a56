"""Split-conformal thresholds: the rank for a rate, the prompts it needs, intervals of rates and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable

from guardrail.errors import CalibrationError


def conformal_rank(n: int, fpr: float) -> int:
    """The rank r = ceil((n + 1)(1 - fpr)). Raises CalibrationError if n is too small for the rate."""
    rank = math.ceil((n + 1) * (1 - fpr) - 1e-9)
    if rank > n:
        raise CalibrationError(
            f"a false-positive rate of {fpr} needs at least {prompts_needed(fpr)} benign prompts, not {n}"
        )
    return rank


def prompts_needed(fpr: float, width: float | None = None, confidence: float = 0.95) -> int:
    """About the fewest benign prompts for a rate; with `width`, for an interval of at most that width.

    The width falls with n, but not at every step: a few prompts less may do as well.
    """
    low = math.ceil(1 / fpr - 1 - 1e-9)
    if width is None:
        return low
    return _least(low, lambda n: _width(n, fpr, confidence) <= width)


def _least(low: int, enough: Callable[[int], bool]) -> int:
    """About the least number from `low` on that is enough, by doubling and then halving."""
    high = low
    while not enough(high):
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _width(n: int, fpr: float, confidence: float) -> float:
    low, high = fpr_interval(n, fpr, confidence)
    return high - low


def fpr_interval(n: int, fpr: float, confidence: float = 0.95) -> tuple[float, float]:
    """The central interval of the true rate of a conformal threshold from n prompts."""
    from scipy.stats import beta

    rank, tail = conformal_rank(n, fpr), (1 - confidence) / 2
    low, high = beta.ppf([tail, 1 - tail], n + 1 - rank, rank)
    return float(low), float(high)


def rank_interval(n: int, fpr: float, confidence: float = 0.95) -> tuple[int, int]:
    """The ranks of n scores between which the quantile 1 - fpr of fresh ones lies; n + 1 is no score at all.

    Order statistics hold whatever the distribution (David and Nagaraja 2003, 7.1).
    """
    from scipy.stats import binom

    low, high = binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n, 1 - fpr)
    return max(1, int(low)), min(n, int(high)) + 1


def observed_fpr(fired: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """(rate, low, high): the Clopper-Pearson interval of a rate observed on fresh benign prompts."""
    from scipy.stats import binomtest

    interval = binomtest(fired, n).proportion_ci(confidence, method="exact")
    return fired / n, float(interval.low), float(interval.high)
