"""The built-in extraction methods, which compute a direction from the states of one layer. Pure numpy.

If there are fewer rows than dimensions, systems are solved in the span of the rows, so that no matrix is
larger than [rows, rows] or [d_model, d_model].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Examples, ExtractionMethod
from guardrail.types import Array

SHRINKAGE = 0.1
PENALTY = 0.01
STEPS = 1000
Matrix = NDArray[np.float64]


class Difference:
    """Mean with the trait minus mean without it (Chen et al. 2025, arXiv 2507.21509, 2.2)."""

    name = "difference"
    needs_scores = False
    penalties: tuple[float, ...] = ()

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        return _float32(_gap(examples))


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

    S = (1 - a) S + a tr(S)/d I with a = 0.1, or the given penalty (Friedman 1989).
    """

    name = "lda"
    needs_scores = False
    penalties = (0.5, SHRINKAGE, 0.02)

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        sides = (examples.positive, examples.negative)
        within = [
            side - share @ side / share.sum() for side, share in zip(sides, _shares(examples), strict=True)
        ]
        scaled = np.concatenate(within) * np.sqrt(np.concatenate(_shares(examples)))[:, None]
        return _float32(_solved(scaled, _gap(examples), _penalty(examples, SHRINKAGE)))


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
    """Logistic regression, L2-penalised, by L-BFGS, on states scaled to unit mean variance."""

    name = "logistic"
    needs_scores = False
    penalties = (0.1, PENALTY, 0.001)

    def direction(self, examples: Examples) -> Array:
        """[d_model]."""
        states = np.concatenate([examples.positive, examples.negative])
        x, basis = _reduced(states)
        scale = np.sqrt(_level(x, states.shape[1]))
        labels = np.repeat([1.0, 0.0], [len(examples.positive), len(examples.negative)])
        shares, penalty = np.concatenate(_shares(examples)), _penalty(examples, PENALTY)
        return _float32(_regressed(x / scale, labels, shares, penalty) @ basis)


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
    return _float32(_solved(within / np.sqrt(len(within)), gap, SHRINKAGE))


def _solved(within: Matrix, gap: Matrix, shrinkage: float) -> Matrix:
    """(Shrunk covariance)^-1 gap. within: [n, d_model], centred; the covariance is within' within."""
    n, d = within.shape
    level = shrinkage * (within**2).sum() / d + 1e-12
    scaled = within * np.sqrt(1 - shrinkage)
    if n >= d:
        return np.linalg.solve(scaled.T @ scaled + level * np.eye(d), gap)
    # Woodbury: the inverse of a low-rank matrix plus a multiple of the identity
    inner = np.linalg.solve(scaled @ scaled.T + level * np.eye(n), scaled @ gap)
    return (gap - scaled.T @ inner) / level


def _regressed(x: Matrix, labels: Matrix, shares: Matrix, strength: float) -> Matrix:
    """Weights that minimise the log loss, averaged with these shares of the rows, plus strength / 2 |w|^2.

    The intercept is not penalised.
    """
    from scipy.optimize import minimize

    def loss(weights: Matrix) -> tuple[float, Matrix]:
        z = x @ weights[:-1] + weights[-1]
        wrong = shares * (expit(z) - labels)
        value = shares @ (np.logaddexp(0, z) - labels * z) + strength / 2 * (weights[:-1] @ weights[:-1])
        return float(value), np.append(x.T @ wrong + strength * weights[:-1], wrong.sum())

    start = np.zeros(x.shape[1] + 1)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "gtol": 1e-6, "ftol": 1e-12}
    )
    return found.x[:-1]


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


def _gap(examples: Examples) -> Matrix:
    with_it, without = _shares(examples)
    return with_it @ examples.positive / with_it.sum() - without @ examples.negative / without.sum()


def _shares(examples: Examples) -> tuple[Matrix, Matrix]:
    """How much each row counts on either side, 1 in all. Given weights make both sides count the same."""
    n, m = len(examples.positive), len(examples.negative)
    if examples.positive_weights is None or examples.negative_weights is None:
        return np.full(n, 1 / (n + m)), np.full(m, 1 / (n + m))
    return examples.positive_weights.astype(np.float64) / 2, examples.negative_weights.astype(np.float64) / 2


def _penalty(examples: Examples, default: float) -> float:
    return default if examples.penalty is None else examples.penalty


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
