"""Extraction methods on states whose directions are known."""

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge

from guardrail.extract.methods import BUILT_IN, PENALTY, SHRINKAGE
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import Examples, ExtractionMethod

METHODS = {method.name: method for method in BUILT_IN}
WIDTH = 12


def examples(n=80, width=WIDTH, seed=0, others=0):
    """A trait along axis 0, something that goes with it along axis 1, noise that is large along axis 2."""
    rng = np.random.default_rng(seed)
    scale = np.ones(width)
    scale[2] = 6
    noise = [rng.normal(size=(n, width)) * scale for _ in range(3 + others)]
    positive, negative, neutral = noise[:3]
    positive[:, :2] += 3
    for i, other in enumerate(noise[3:]):
        other[:, 1] += 3
        other[:, 3 + i] += 3
    states = np.concatenate([positive, negative, neutral, *noise[3:]]).astype(np.float32)
    scores = np.repeat([90.0, 5.0, 10.0] + [10.0] * others, n).astype(np.float32)
    return Examples(
        positive=positive.astype(np.float32),
        negative=negative.astype(np.float32),
        neutral=neutral.astype(np.float32),
        others=tuple(other.astype(np.float32) for other in noise[3:]),
        states=states,
        scores=scores,
    )


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def axis(*weights):
    return np.array([*weights, *[0] * (WIDTH - len(weights))], dtype=float)


def test_the_built_in_methods_are_contributed_by_the_hook():
    found = Plugins().extraction_methods
    assert set(found) == {"difference", "logistic", "lda", "pca", "contrast", "regression"}
    assert all(isinstance(method, ExtractionMethod) for method in found.values())


@pytest.mark.parametrize("name", ["difference", "logistic", "lda", "pca", "contrast", "regression"])
def test_every_method_points_from_without_to_with(name):
    given = examples()
    found = METHODS[name].direction(given)
    assert found.shape == (WIDTH,)
    assert found.dtype == np.float32
    assert (given.positive @ found).mean() > (given.negative @ found).mean()


@pytest.mark.parametrize("name", ["logistic", "lda", "contrast", "regression"])
def test_discriminative_methods_ignore_what_only_varies(name):
    assert cosine(METHODS[name].direction(examples(400)), axis(1, 1)) > 0.95


def test_lda_is_that_of_scikit_learn():
    given = examples()
    x = np.concatenate([given.positive, given.negative])
    y = np.repeat([1, 0], 80)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE).fit(x, y).coef_[0]
    assert cosine(METHODS["lda"].direction(given), theirs) > 0.999


def test_logistic_is_that_of_scikit_learn():
    given = examples()
    x = np.concatenate([given.positive, given.negative]).astype(np.float64)
    scaled = x / np.sqrt(x.var(axis=0).mean())
    y = np.repeat([1, 0], 80)
    theirs = LogisticRegression(C=1 / (PENALTY * len(x)), tol=1e-8, max_iter=1000).fit(scaled, y).coef_[0]
    found = METHODS["logistic"].direction(given)
    assert cosine(found, theirs) > 0.9999
    assert np.allclose(found, theirs, atol=1e-3)


def test_regression_is_ridge_regression():
    given = examples(others=1)
    level = PENALTY * given.states.var(axis=0).mean()
    ridge = Ridge(alpha=level * len(given.states)).fit(given.states.astype(np.float64), given.scores)
    assert np.allclose(METHODS["regression"].direction(given), ridge.coef_, rtol=1e-3, atol=1e-5)


def test_regression_leaves_out_what_was_not_judged():
    given = examples(others=1)
    scores = given.scores.copy()
    scores[240:] = np.nan
    changed = Examples(
        positive=given.positive,
        negative=given.negative,
        neutral=given.neutral,
        states=given.states,
        scores=scores,
    )
    assert (
        cosine(METHODS["regression"].direction(changed), METHODS["regression"].direction(examples())) > 0.9999
    )


def test_pca_is_the_first_uncentred_direction_of_the_pairs():
    given = examples()
    theirs = TruncatedSVD(1, algorithm="arpack").fit(given.positive - given.negative).components_[0]
    assert abs(cosine(METHODS["pca"].direction(given), theirs)) > 0.999


def test_contrast_does_not_fire_for_other_traits_where_the_difference_does():
    """Everything strong shares axis 1: a plain difference is half `not neutral`."""
    given = examples(400, others=2)
    plain, contrast = (METHODS[name].direction(given) for name in ("difference", "contrast"))
    assert cosine(plain[[0, 1]], np.array([1, 1])) > 0.99
    assert 0 < contrast[1] < 0.7 * contrast[0]
    assert contrast[0] > 0 > max(contrast[3], contrast[4])


@pytest.mark.parametrize("name", ["logistic", "lda", "contrast", "regression"])
def test_fewer_rows_than_dimensions_give_the_solution_of_the_whole_space(name):
    """Padding with dimensions of zeros, more than there are rows, changes nothing but the mean variance."""
    narrow = examples(5, width=WIDTH)

    def padded(states, zeros):
        return np.pad(states, ((0, 0), (0, zeros)))

    def wide(zeros):
        return METHODS[name].direction(
            Examples(
                positive=padded(narrow.positive, zeros),
                negative=padded(narrow.negative, zeros),
                neutral=padded(narrow.neutral, zeros),
                states=padded(narrow.states, zeros),
                scores=narrow.scores,
            )
        )

    found = wide(100)
    assert np.isfinite(found).all()
    assert np.allclose(found[WIDTH:], 0, atol=1e-6)
    assert (narrow.positive @ found[:WIDTH]).mean() > (narrow.negative @ found[:WIDTH]).mean()
    few, more = wide(3), METHODS[name].direction(narrow)
    assert cosine(few[:WIDTH], more) > 0.98


@pytest.mark.parametrize("name", ["difference", "logistic", "lda", "pca", "contrast", "regression"])
def test_states_that_do_not_differ_give_finite_numbers(name):
    zeros = np.zeros((4, WIDTH), np.float32)
    same = Examples(positive=zeros, negative=zeros, neutral=zeros, states=zeros, scores=zeros[:, 0])
    assert np.isfinite(METHODS[name].direction(same)).all()
