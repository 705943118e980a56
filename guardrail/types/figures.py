"""Scores and thresholds as people read them."""

from __future__ import annotations

import math

MOST = 6


def told_apart(score: float, threshold: float) -> tuple[str, str]:
    """Both with two decimals, or with as many as it takes to see that they differ (at most `MOST`)."""
    if score == threshold:
        return _shown(score), _shown(threshold)
    for decimals in range(2, MOST):
        pair = _shown(score, decimals), _shown(threshold, decimals)
        if pair[0] != pair[1]:
            return pair
    return _shown(score, MOST), _shown(threshold, MOST)


def _shown(value: float, decimals: int = 2) -> str:
    """A number with these decimals, or four figures if it is large."""
    if not math.isfinite(value):
        return "unknown"
    return f"{value:.{decimals}f}" if abs(value) < 1000 or decimals > 2 else f"{value:.4g}"
