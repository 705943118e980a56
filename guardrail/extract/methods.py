"""The built-in extraction methods, which compute a direction from the states of one layer. Pure numpy.

If there are fewer rows than dimensions, systems are solved in the span of the rows, so that no matrix is
larger than [rows, rows] or [d_model, d_model].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Examples, ExtractionMethod
from guardrail.types import Array

SHRINKAGE = 0.1
PENALTY = 0.01
STEPS = 50
Matrix = NDArray[np.float64]


class Difference:
    """Mean with the trait minus mean without it (Chen et al. 2025, arXiv 2507.21509, 2.2)."""

    name = "difference"
    needs_scores = False

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        return _gap(examples)


class Pca:
    """First principal direction of the paired differences, not centred, so that the common shift counts.

    The top eigenvector of mean d d', signed towards the mean of d (Zou et al. 2023, arXiv 2310.01405).
    """

    name = "pca"
    needs_scores = False

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        differences = examples.positive.astype(np.float64) - examples.negative
        first = np.linalg.svd(differences, full_matrices=False)[2][0]
        return _float32(first if first @ differences.mean(axis=0) >= 0 else -first)


class Lda:
    """Fisher's discriminant, S^-1 (mean with - mean without), S the within-class covariance, shrunk.

    S = (1 - a) S + a tr(S)/d I with a = 0.1 (Friedman 1989).
    """

    name = "lda"
    needs_scores = False

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        return discriminant([examples.positive], [examples.negative])


class Contrast:
    """Fisher's discriminant against everything else at once: forbidden, neutral, and other traits.

    Subtracts from the trait's mean the mean over those groups; other traits, if any, make up half of it. A
    plain difference would mostly mean `not neutral` and fire for any strong trait.
    """

    name = "contrast"
    needs_scores = False

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        ground = [one for one in (examples.negative, examples.neutral) if len(one)]
        return discriminant([examples.positive], ground, examples.others)


class Logistic:
    """Logistic regression, L2-penalised, by Newton's method, on states scaled to unit mean variance."""

    name = "logistic"
    needs_scores = False

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        states = np.concatenate([examples.positive, examples.negative])
        x, basis = _reduced(states)
        scale = np.sqrt(_level(x, states.shape[1]))
        labels = np.repeat([1.0, 0.0], [len(examples.positive), len(examples.negative)])
        return _float32(_newton(x / scale, labels) @ basis)


class Regression:
    """Ridge regression of the judged score on the states of all prompts, those of other traits included.

    (X'X / n + a tr/d I)^-1 X'y / n with a = 0.01, both centred. Uses degrees of the trait, and other traits.
    """

    name = "regression"
    needs_scores = True

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        judged = np.isfinite(examples.scores)
        states, y = examples.states[judged], examples.scores[judged].astype(np.float64)
        x, basis = _reduced(states)
        gram = x.T @ x / len(x) + PENALTY * _level(x, states.shape[1]) * np.eye(x.shape[1])
        return _float32(np.linalg.solve(gram, x.T @ (y - y.mean()) / len(x)) @ basis)


def discriminant(positive: Sequence[Array], negative: Sequence[Array], others: Sequence[Array] = ()) -> Array:
    """Fisher's discriminant of groups; means are over groups, `others` weigh half if there are any."""
    groups = [*positive, *negative, *others]
    within = np.concatenate([group - group.mean(axis=0, dtype=np.float64) for group in groups])
    ground = _mean_of_means(negative)
    if others:
        ground = (ground + _mean_of_means(others)) / 2
    gap = _mean_of_means(positive) - ground
    return _float32(_solved(within, gap))


def _solved(within: Matrix, gap: Matrix) -> Matrix:
    """(Shrunk covariance)^-1 gap. within: [n, d_model], centred."""
    n, d = within.shape
    level = SHRINKAGE * (within**2).sum() / (n * d) + 1e-12
    scaled = within * np.sqrt((1 - SHRINKAGE) / n)
    if n >= d:
        return np.linalg.solve(scaled.T @ scaled + level * np.eye(d), gap)
    # Woodbury: the inverse of a low-rank matrix plus a multiple of the identity
    inner = np.linalg.solve(scaled @ scaled.T + level * np.eye(n), scaled @ gap)
    return (gap - scaled.T @ inner) / level


def _newton(x: Matrix, labels: Matrix) -> Matrix:
    """Weights that minimise the mean log loss plus PENALTY / 2 |w|^2; the intercept is not penalised."""
    x1 = np.column_stack([x, np.ones(len(x))])
    penalty = np.full(x1.shape[1], PENALTY)
    penalty[-1] = 1e-9
    weights = np.zeros(x1.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x1 @ weights, -30, 30)))
        gradient = x1.T @ (p - labels) / len(x) + penalty * weights
        curvature = (x1.T * (p * (1 - p))) @ x1 / len(x) + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights[:-1]


def _reduced(states: Array) -> tuple[Matrix, Matrix]:
    """Centred states as coordinates [n, r] in an orthonormal basis [r, d_model] of their span."""
    x = states.astype(np.float64)
    x -= x.mean(axis=0)
    n, d = x.shape
    if n > d:
        return x, np.eye(d)
    u, s, basis = np.linalg.svd(x, full_matrices=False)
    return u * s, basis


def _level(x: Matrix, d_model: int) -> float:
    """The mean variance over the dimensions of the model."""
    return float((x**2).sum() / (len(x) * d_model)) + 1e-12


def _gap(examples: Examples) -> Array:
    return _float32(
        examples.positive.mean(axis=0, dtype=np.float64) - examples.negative.mean(axis=0, dtype=np.float64)
    )


def _mean_of_means(groups: Sequence[Array]) -> Matrix:
    return np.mean([group.mean(axis=0, dtype=np.float64) for group in groups], axis=0)


def _float32(values: Matrix) -> Array:
    return values.astype(np.float32)


BUILT_IN: tuple[ExtractionMethod, ...] = (
    Difference(),
    Logistic(),
    Lda(),
    Pca(),
    Contrast(),
    Regression(),
)


@hookimpl
def guardrail_extraction_methods() -> Sequence[ExtractionMethod]:
    """`difference`, `logistic`, `lda`, `pca`, `contrast`, `regression`."""
    return list(BUILT_IN)
