"""Compares a judge with people: agreement and Cohen's kappa on yes or no, correlation on scores.

All intervals are 95 %: Wilson's for the share of agreement, a percentile bootstrap over replies otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from guardrail.statistics.intervals import Estimate

YES = 50.0
"""A score at or above this means that the reply shows the trait (arXiv 2507.21509, section 2.2)."""
Z = 1.959963984540054
RESAMPLES = 2000
CELLS = 1_000_000
"""How many resamples are drawn at once, to limit memory."""
Statistic: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Maps scores [..., n, 2] of a judge and of people to one number per sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A judge against people on one trait.

    `refused` replies were not judged and are not part of any number. `kappa` is None if people or the judge
    give every reply the same answer; `correlation` is None if people gave no scores or one side is constant.
    """

    trait: str
    n: int
    refused: int
    agreement: Estimate | None
    kappa: Estimate | None
    correlation: Estimate | None
    both: int
    judge_only: int
    people_only: int
    neither: int


def agreement(
    trait: str, judged: Sequence[float | None], people: Sequence[float], *, scored: bool, seed: int = 0
) -> Agreement:
    """Compare a judge's scores with people's, both 0 to 100; `scored` says that people gave scores."""
    kept = [(j, p) for j, p in zip(judged, people, strict=True) if j is not None]
    pairs = np.array(kept, dtype=np.float64).reshape(-1, 2)
    said, true = (pairs >= YES).T
    return Agreement(
        trait=trait,
        n=len(pairs),
        refused=len(judged) - len(pairs),
        agreement=wilson(int((said == true).sum()), len(pairs)) if len(pairs) else None,
        kappa=bootstrap(pairs, kappa, seed),
        correlation=bootstrap(pairs, pearson, seed) if scored else None,
        both=int((said & true).sum()),
        judge_only=int((said & ~true).sum()),
        people_only=int((~said & true).sum()),
        neither=int((~said & ~true).sum()),
    )


def wilson(hits: int, n: int) -> Estimate:
    """A share with Wilson's score interval (1927)."""
    share = hits / n
    centre, scale = share + Z**2 / (2 * n), 1 + Z**2 / n
    half = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Estimate(value=share, low=float(low), high=float(high))


def kappa(pairs: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960) of scores [..., n, 2], cut at YES; NaN if chance agreement is complete."""
    said, true = np.moveaxis(pairs >= YES, -1, 0)
    observed = (said == true).mean(axis=-1)
    yes_said, yes_true = said.mean(axis=-1), true.mean(axis=-1)
    chance = yes_said * yes_true + (1 - yes_said) * (1 - yes_true)
    return _divided(observed - chance, 1 - chance)


def pearson(pairs: np.ndarray) -> np.ndarray:
    """The correlation of scores [..., n, 2]; NaN if one side is constant."""
    judged, people = np.moveaxis(pairs - pairs.mean(axis=-2, keepdims=True), -1, 0)
    scale = np.sqrt((judged**2).sum(axis=-1) * (people**2).sum(axis=-1))
    return _divided((judged * people).sum(axis=-1), scale)


def bootstrap(pairs: np.ndarray, statistic: Statistic, seed: int) -> Estimate | None:
    """The statistic of [n, 2] and its percentile interval; None if the sample does not define it."""
    if not len(pairs) or np.isnan(value := float(statistic(pairs))):
        return None
    rng, n = np.random.default_rng(seed), len(pairs)
    at_once = max(1, CELLS // n)
    sizes = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    drawn = np.concatenate([statistic(pairs[rng.integers(0, n, (size, n))]) for size in sizes])
    low, high = np.nanquantile(np.append(drawn, value), [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 1e-12)
