"""Null distributions, which show the results of chance: random directions and shuffled labels.

A random direction is a random Gaussian combination of centred states of *neutral* text, so it has their
covariance at every layer and no information about any trait. A null drawn from the contrast itself would lie
almost on the trait vector and look as good (a replication of arXiv 2507.21509 withdrew a verdict for that).
One draw uses the same combination at all layers, like a trait vector. If the data chose the layer, every draw
uses its own best layer, so `p` is family-wise. Random directions have no sign: their better side counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.statistics.correlation import centred
from guardrail.statistics.intervals import Numbers, numbers
from guardrail.statistics.metrics import areas
from guardrail.statistics.nulls import DRAWS, SEED, Null

_Quality: TypeAlias = Callable[[NDArray[np.floating], int], Numbers]
"""Maps directions [d_model, k] and a layer to the quality [k] of each direction."""
CHUNK = 250
"""How many directions are projected at a time."""


class RandomDirections:
    """Directions with the covariance of neutral states [m, L + 1, d_model], the same draws at every layer."""

    def __init__(self, neutral: NDArray[np.floating], layers: Sequence[int], draws: int = DRAWS) -> None:
        self.layers, self.draws = tuple(layers), draws
        mixtures = np.random.default_rng(SEED).standard_normal((len(neutral), draws)).astype(np.float32)
        centre = neutral.mean(axis=0)
        self._directions = {row: (neutral[:, row] - centre[row]).T @ mixtures for row in layers}

    def auroc(self, observed: float, positive: NDArray[np.floating], negative: NDArray[np.floating]) -> Null:
        """The null of an AUROC on states [n, L + 1, d_model] of both classes."""
        return Null.of(
            observed, self._best(lambda w, row: _two_sided(positive[:, row] @ w, negative[:, row] @ w))
        )

    def correlation(self, observed: float, states: NDArray[np.floating], expression: Numbers) -> Null:
        """The null of |r| between states [n, L + 1, d_model] and the expression [n]."""
        return Null.of(
            observed, self._best(lambda w, row: np.abs(columnwise_r(states[:, row] @ w, expression)))
        )

    def within(
        self, observed: float, conditions: Sequence[str], states: NDArray[np.floating], expression: Numbers
    ) -> Null:
        """Like `correlation`, but of deviations from each condition's mean."""
        return self.correlation(
            observed, _centred_states(conditions, states), centred(conditions, expression)
        )

    def _best(self, quality: _Quality) -> Numbers:
        return np.max([self._at(quality, row) for row in self.layers], axis=0)

    def _at(self, quality: _Quality, row: int) -> Numbers:
        found = self._directions[row]
        chunks = [found[:, start : start + CHUNK] for start in range(0, self.draws, CHUNK)]
        return np.concatenate([quality(chunk, row) for chunk in chunks])


def shuffled_expression(
    observed: float,
    conditions: Sequence[str],
    scores: NDArray[np.floating],
    expression: Numbers,
    draws: int = DRAWS,
) -> Null:
    """The null of the within-condition r of scores [n, layers], shuffling expression in each condition."""
    rng, keys = np.random.default_rng(SEED), np.asarray(conditions)
    rows, target = centred(conditions, scores), centred(conditions, expression)
    places = [np.flatnonzero(keys == key) for key in np.unique(keys)]
    found = []
    for _ in range(draws):
        dealt = target.copy()
        for place in places:
            dealt[place] = rng.permutation(target[place])
        found.append(columnwise_r(rows, dealt).max())
    return Null.of(observed, numbers(found))


def columnwise_r(columns: NDArray[np.floating], target: Numbers) -> Numbers:
    """[k]: Pearson's r of each column of [n, k] with [n]; 0 if constant."""
    a, b = numbers(columns) - columns.mean(axis=0), target - target.mean()
    size = np.sqrt((a**2).sum(axis=0) * (b @ b))
    return np.divide(a.T @ b, size, out=np.zeros(a.shape[1]), where=size > 0)


def _two_sided(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> Numbers:
    found = areas(positive, negative)
    return np.maximum(found, 1 - found)


def _centred_states(conditions: Sequence[str], states: NDArray[np.floating]) -> NDArray[np.float32]:
    keys, result = np.asarray(conditions), np.array(states, dtype=np.float32)
    for key in np.unique(keys):
        result[keys == key] -= result[keys == key].mean(axis=0)
    return result
