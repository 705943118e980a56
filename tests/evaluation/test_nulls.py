"""Nulls let a planted direction through and stop noise."""

import numpy as np

from guardrail.evaluation import nulls
from guardrail.statistics.nulls import Null, chance, shuffled_labels

LAYERS, D = 4, 24


def world(seed=0, planted=3.0, n=80, m=200):
    """Neutral, positive and negative states [., L + 1, d]; the trait moves coordinate 0 at every layer."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.5, 2, D)
    neutral, positive, negative = (
        (rng.normal(size=(size, LAYERS + 1, D)) * scale).astype(np.float32) for size in (300, n, m)
    )
    positive[:, :, 0] += planted
    return neutral, positive, negative


def observed(positive, negative, layer=2):
    from guardrail.statistics.metrics import area

    return area(positive[:, layer, 0], negative[:, layer, 0])


def test_a_planted_direction_beats_random_ones_over_all_layers():
    neutral, positive, negative = world()
    directions = nulls.RandomDirections(neutral, range(1, LAYERS + 1), 300)
    found = directions.auroc(observed(positive, negative), positive, negative)
    assert found.p < 0.01
    assert found.observed > found.high > found.median


def test_a_direction_of_noise_does_not_beat_random_ones():
    rejected = 0
    for seed in range(20):
        neutral, positive, negative = world(seed, planted=0.0)
        directions = nulls.RandomDirections(neutral, range(1, LAYERS + 1), 100)
        rejected += directions.auroc(observed(positive, negative), positive, negative).p < 0.05
    assert rejected <= 3


def test_every_draw_takes_its_own_best_layer():
    neutral, positive, negative = world(planted=0.0)
    one, all_of_them = (
        nulls.RandomDirections(neutral, layers, 300).auroc(0.55, positive, negative)
        for layers in ([2], range(1, LAYERS + 1))
    )
    assert all_of_them.median > one.median
    assert all_of_them.p > one.p


def test_random_directions_have_the_covariance_of_neutral_text():
    neutral, *_ = world()
    directions = nulls.RandomDirections(neutral, [1], 20_000)._directions[1]
    expected = np.cov(neutral[:, 1].T) * (len(neutral) - 1)
    assert np.allclose(np.cov(directions), expected, atol=0.06 * expected.max())


def expression(positive, seed=0):
    rng = np.random.default_rng(seed)
    return 50 + 10 * positive[:, 2, 0].astype(np.float64) + rng.normal(0, 5, len(positive))


def test_correlation_with_expression_beats_chance_only_where_it_is_real():
    neutral, states, _ = world(planted=0.0)
    names, real = ["a", "b"] * 40, expression(states)
    directions = nulls.RandomDirections(neutral, [2], 300)
    r = float(np.corrcoef(states[:, 2, 0], real)[0, 1])
    assert directions.correlation(r, states, real).p < 0.02
    assert directions.within(r, names, states, real).p < 0.02
    assert directions.correlation(0.1, states, real).p > 0.05
    scores = states[:, [2], 0]
    assert nulls.shuffled_expression(r, names, scores, real, 200).p < 0.01
    noise = np.random.default_rng(5).normal(50, 10, (20, len(states)))
    weak = [(float(nulls.columnwise_r(scores, one)[0]), one) for one in noise]
    rejected = sum(nulls.shuffled_expression(r, names, scores, one, 100).p < 0.05 for r, one in weak)
    assert rejected <= 3


def test_shuffled_labels_reject_only_what_separates():
    _, positive, negative = world()
    shown, bare = positive[:, 1:, 0], negative[:, 1:, 0]
    assert shuffled_labels(observed(positive, negative), shown, bare, 200).p < 0.01
    _, positive, negative = world(planted=0.0)
    shown, bare = positive[:, 1:, 0], negative[:, 1:, 0]
    found = shuffled_labels(0.52, shown, bare, 200)
    assert found.p > 0.05
    assert 0.5 < found.median < 0.6


def test_a_p_value_is_never_zero():
    found = Null.of(1.0, np.zeros(99))
    assert found.p == 0.01
    assert chance(found) == "p ≤ 0.01"
    assert chance(Null.of(0.5, np.r_[np.zeros(49), np.ones(50)])) == "p = 0.51"
