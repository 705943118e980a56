"""Estimates with 95 % intervals: bootstrap over prompts for means, AUROC and r, exact for rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardrail.calibration import observed_fpr

Numbers = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float]) -> Estimate:
    """The mean."""
    return bootstrap(lambda x: float(x.mean()), np.asarray(values, dtype=np.float64))


def rate(hits: Sequence[bool]) -> Estimate:
    """A share, with the Clopper-Pearson interval."""
    return Estimate(*observed_fpr(sum(hits), len(hits)))


def auroc(positive: Numbers, negative: Numbers) -> Estimate:
    """The chance that a positive scores above a negative, ties half; both sides are resampled."""
    rng = np.random.default_rng(0)
    draws = [
        area(rng.choice(positive, len(positive)), rng.choice(negative, len(negative)))
        for _ in range(RESAMPLES)
    ]
    return Estimate(area(positive, negative), *_ends(draws))


def area(positive: Numbers, negative: Numbers) -> float:
    """AUROC without an interval."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def correlation(first: Numbers, second: Numbers) -> Estimate:
    """Pearson's r."""
    return bootstrap(_r, np.stack([first, second], axis=1))


def within(groups: Sequence[str], first: Numbers, second: Numbers) -> Estimate:
    """Pearson's r after subtracting each group's mean from both."""
    keys = np.asarray(groups)
    return correlation(_centred(keys, first), _centred(keys, second))


def bootstrap(statistic: Callable[[Numbers], float], rows: Numbers) -> Estimate:
    """A statistic of rows with a percentile interval over resampled rows."""
    rng = np.random.default_rng(0)
    draws = [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(RESAMPLES)]
    return Estimate(statistic(rows), *_ends(draws))


def _r(rows: Numbers) -> float:
    a, b = (rows - rows.mean(axis=0)).T
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _centred(keys: NDArray[np.str_], values: Numbers) -> Numbers:
    result = values.astype(np.float64)
    for key in np.unique(keys):
        result[keys == key] -= values[keys == key].mean()
    return result


def _ends(draws: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)
