"""Measures how much a direction depends on the choice of questions, at each layer.

Split half: the cosine of the directions from two disjoint halves of the questions. Bootstrap: the cosine of
the direction with those from resampled questions (Efron 1979, by cluster). Norms compare its size with that
of the states.
"""

from __future__ import annotations

import numpy as np

from guardrail.extract.moments import Moments
from guardrail.types import Array
from guardrail.vectors.provenance import Stability
from guardrail.vectors.values import unit

RESAMPLES = 200


def stability(moments: Moments, position: str, seed: int = 0) -> Stability | None:
    """The stability at a position. None if fewer than two questions have a kept pair."""
    asked = np.flatnonzero(moments.counts)
    if len(asked) < 2:
        return None
    difference = moments.difference(position)
    halves = [moments.resampled(position, _weights(moments, asked[start::2])) for start in (0, 1)]
    low = np.quantile(_bootstrapped(moments, position, asked, difference, seed), 0.05, axis=0)
    relative = np.linalg.norm(difference, axis=1) / np.maximum(moments.mean_norms(), 1e-12)
    return Stability(
        questions=len(asked),
        split_half=_rounded(cosines(*halves)),
        bootstrap_low=_rounded(low),
        relative_norm=_rounded(relative),
    )


def cosines(a: Array, b: Array) -> Array:
    """[L + 1]: cosines between the rows of two [L + 1, d_model]; 0 for zero rows."""
    return np.sum(unit(a) * unit(b), axis=1)


def _bootstrapped(moments: Moments, position: str, asked: np.ndarray, difference: Array, seed: int) -> Array:
    """[resamples, L + 1]."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(asked, (RESAMPLES, len(asked)))
    rows = [cosines(moments.resampled(position, _weights(moments, one)), difference) for one in drawn]
    return np.stack(rows)


def _weights(moments: Moments, questions: np.ndarray) -> np.ndarray:
    return np.bincount(questions, minlength=len(moments.counts)).astype(np.float64)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
