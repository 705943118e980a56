"""Correlates scores with the trait expression of later replies, and estimates the best possible r.

`within` leaves out conditions whose expression hardly varies (standard deviation below 1, arXiv 2507.21509,
table 2), because there is nothing to predict in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guardrail.statistics.intervals import Estimate, Numbers, bootstrap, numbers

FLAT = 1.0
FEWEST = 3
"""The fewest prompts of a condition for a correlation within it."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well one reply (or the mean of `replies`) predicts another reply to the same prompt.

    `mean` is the Spearman-Brown extrapolation of `one`; its root is the highest r that a score can reach
    without knowing the replies. The values within conditions first subtract each condition's mean.
    """

    replies: int
    one: float
    mean: float
    within_one: float | None
    within_mean: float | None


def overall(conditions: Sequence[str], score: Numbers, expression: Numbers) -> Estimate | None:
    """Pearson's r, prompts resampled within conditions; None if something is constant."""
    return _estimated(parts(conditions, np.stack([score, expression], axis=1)), inside=False)


def within(conditions: Sequence[str], score: Numbers, expression: Numbers) -> Estimate | None:
    """Pearson's r of deviations from each condition's mean, over the conditions that vary."""
    kept = varying(conditions, expression)
    rows = np.stack([score, expression], axis=1)[kept]
    return _estimated(parts([conditions[i] for i in kept], rows), inside=True)


def varying(conditions: Sequence[str], expression: Numbers) -> list[int]:
    """The positions of prompts under conditions of at least FEWEST prompts whose expression varies."""
    keys = np.asarray(conditions)
    live = {
        key
        for key in np.unique(keys)
        if (keys == key).sum() >= FEWEST and expression[keys == key].std(ddof=1) >= FLAT
    }
    return [i for i, key in enumerate(conditions) if key in live]


def parts(conditions: Sequence[str], rows: Numbers) -> list[Numbers]:
    """The rows of each condition, in the order of the conditions' names."""
    keys = np.asarray(conditions)
    return [rows[keys == key] for key in np.unique(keys)]


def _estimated(strata: Sequence[Numbers], *, inside: bool) -> Estimate | None:
    if sum(map(len, strata)) < FEWEST or _pooled(*strata, inside=inside) is None:
        return None
    return bootstrap(lambda *drawn: _pooled(*drawn, inside=inside) or 0.0, *strata)


def _pooled(*strata: Numbers, inside: bool) -> float | None:
    rows = np.concatenate([part - part.mean(axis=0) if inside else part for part in strata])
    return pearson(rows[:, 0], rows[:, 1])


def pearson(first: Numbers, second: Numbers) -> float | None:
    """Pearson's r; None if either is constant."""
    a, b = first - first.mean(), second - second.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 1e-12 else None


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's rank correlation; None if either is constant, or for fewer than two values."""
    from scipy.stats import rankdata

    a, b = numbers(first), numbers(second)
    return pearson(rankdata(a), rankdata(b)) if len(a) > 1 else None


def centred(conditions: Sequence[str], values: NDArray[np.floating]) -> Numbers:
    """Values [n] or [n, k] minus the mean of their condition."""
    keys, result = np.asarray(conditions), np.array(values, dtype=np.float64)
    for key in np.unique(keys):
        result[keys == key] -= result[keys == key].mean(axis=0)
    return result


def label_alone(conditions: Sequence[str], expression: Numbers) -> Estimate | None:
    """r of the expression with the mean of the *other* prompts under the same condition.

    This is the prediction of somebody who knows the condition but not the model. None if there is only one
    condition.
    """
    known, keys = np.full(len(expression), np.nan), np.asarray(conditions)
    names = np.unique(keys)
    for name in names:
        here = keys == name
        if here.sum() > 1:
            known[here] = (expression[here].sum() - expression[here]) / (here.sum() - 1)
    usable = np.isfinite(known)
    if len(names) < 2 or usable.sum() < FEWEST:
        return None
    # one stratum, because the prompts of a condition predict each other
    return overall(["all"] * int(usable.sum()), known[usable], expression[usable])


def reliability(conditions: Sequence[str], replies: Sequence[Sequence[float]]) -> Reliability | None:
    """From the expression of single replies, equally many per prompt; None for one reply each."""
    counts = {len(values) for values in replies}
    if len(counts) != 1 or (k := counts.pop()) < 2:
        return None
    table = np.asarray(replies, dtype=np.float64)
    one = _between(table)
    if one is None:
        return None
    kept = varying(conditions, table.mean(axis=1))
    inner = _between(centred([conditions[i] for i in kept], table[kept])) if kept else None
    return Reliability(k, one, _extended(one, k), inner, None if inner is None else _extended(inner, k))


def _between(table: Numbers) -> float | None:
    found = [pearson(a, b) for a, b in combinations(table.T, 2)]
    known = [r for r in found if r is not None]
    return float(np.mean(known)) if known else None


def _extended(one: float, replies: int) -> float:
    return replies * one / (1 + (replies - 1) * one)
