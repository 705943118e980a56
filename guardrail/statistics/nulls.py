"""What chance reaches: null distributions, and where an observed number lies in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardrail.statistics.intervals import Numbers

SEED = 1
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Null:
    """The observed value, with the median and the 95th percentile of `draws` null draws."""

    observed: float
    median: float
    high: float
    p: float
    draws: int

    @classmethod
    def of(cls, observed: float, draws: Numbers) -> Null:
        """Phipson and Smyth (2010): p = (1 + draws as good) / (1 + draws)."""
        as_good, count = int((draws >= observed).sum()), len(draws)
        median, high = float(np.median(draws)), float(np.percentile(draws, 95))
        return cls(observed, median, high, (1 + as_good) / (1 + count), count)


def chance(found: Null) -> str:
    """The p-value as text; only a bound if no draw was as good."""
    return f"p ≤ {found.p:.1g}" if found.p <= 1 / (1 + found.draws) else f"p = {found.p:.2g}"


def shuffled_labels(
    observed: float, positive: NDArray[np.floating], negative: NDArray[np.floating], draws: int = DRAWS
) -> Null:
    """The null of the AUROC of scores [n, layers] under shuffled labels; each draw uses its best layer."""
    from scipy.stats import rankdata

    rng, n, m = np.random.default_rng(SEED), len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]), axis=0)
    sums = np.array([ranks[rng.permutation(n + m)[:n]].sum(axis=0) for _ in range(draws)])
    return Null.of(observed, ((sums - n * (n + 1) / 2) / (n * m)).max(axis=1))
