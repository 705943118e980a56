"""Detection metrics against scikit-learn, with ties; intervals by simulation."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from guardrail.statistics import correlation, intervals, metrics


def draw(seed, n=60, m=140, ties=False, shift=1.0):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(shift, 1, n), rng.normal(0, 1, m)
    return (positive.round(), negative.round()) if ties else (positive, negative)


def joined(positive, negative):
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return labels, np.r_[positive, negative]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_average_precision_agree_with_scikit_learn(seed, ties):
    positive, negative = draw(seed, ties=ties)
    labels, scores = joined(positive, negative)
    assert metrics.area(positive, negative) == pytest.approx(roc_auc_score(labels, scores))
    assert metrics.precision(positive, negative) == pytest.approx(average_precision_score(labels, scores))


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("ties", [False, True])
def test_the_share_above_a_false_positive_rate_agrees_with_scikit_learns_curve(ties, fpr):
    positive, negative = draw(7, ties=ties)
    false, true, _ = roc_curve(*joined(positive, negative), drop_intermediate=False)
    assert metrics.share_above(positive, negative, fpr) == pytest.approx(true[false <= fpr].max())


def test_at_most_the_asked_share_of_negatives_exceeds_the_threshold():
    for size in (5, 99, 100, 101, 250):
        negative = np.random.default_rng(size).normal(size=size)
        assert (negative > metrics.threshold_at(negative, 0.01)).mean() <= 0.01


def test_columns_at_once_are_columns_one_by_one():
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 5, (30, 4)), rng.integers(0, 4, (50, 4))
    each = [metrics.area(positive[:, j], negative[:, j]) for j in range(4)]
    assert metrics.areas(positive, negative) == pytest.approx(each)


def test_the_curve_is_that_of_scikit_learn():
    positive, negative = draw(3, ties=True)
    false, true, _ = roc_curve(*joined(positive, negative), drop_intermediate=False)
    ours = metrics.curve(positive, negative)
    assert ours[0] == pytest.approx(false)
    assert ours[1] == pytest.approx(true)


def test_perfect_separation_is_not_certainty():
    found = metrics.auroc(np.arange(10.0) + 100, np.arange(20.0))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 10))
    assert metrics.auroc(np.arange(20.0), np.arange(10.0) + 100).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert metrics.tpr_at_fpr(np.arange(10.0) + 100, np.arange(200.0) / 10).low == pytest.approx(
        0.6915, abs=1e-3
    )


def test_the_bound_of_perfect_separation_is_mirrored_if_it_is_the_wrong_way_round():
    found = metrics.auroc(np.arange(20.0), np.arange(10.0) + 100)
    assert found == intervals.Estimate(0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 10)))


def test_a_true_positive_rate_of_none_or_all_has_the_exact_interval():
    ties = metrics.tpr_at_fpr(np.ones(10), np.ones(50))
    assert ties == intervals.Estimate(0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    above_the_median = metrics.tpr_at_fpr(np.arange(60.0, 70), np.arange(100.0), 0.5)
    assert above_the_median == intervals.Estimate(1.0, pytest.approx(0.025 ** (1 / 10)), 1.0)


def test_few_negatives_make_the_true_positive_rate_uncertain():
    positive, negative = draw(0, n=2000, m=10)
    found = metrics.tpr_at_fpr(positive, negative, 0.3)
    exact = intervals.rate(positive > metrics.threshold_at(negative, 0.3))
    assert found.value == exact.value == metrics.share_above(positive, negative, 0.3)
    assert found.low <= exact.low < exact.high <= found.high
    assert found.high - found.low > 5 * (exact.high - exact.low)


def test_a_rate_of_one_is_a_threshold_at_the_lowest_negative():
    assert metrics.threshold_at(np.asarray([3.0, 1.0, 2.0]), 1.0) == 1.0


def test_average_precision_has_an_interval():
    positive, negative = draw(2)
    found = metrics.average_precision(positive, negative)
    assert found.value == metrics.precision(positive, negative)
    assert found.value - 0.15 < found.low < found.value < found.high < found.value + 0.15


def test_auroc_intervals_cover_the_truth_in_about_95_of_100_samples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    truth = 0.760250  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    found = [metrics.auroc(*draw(seed, 40, 60)) for seed in range(120)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.89 <= covered <= 0.99


def test_correlation_intervals_cover_the_truth(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    covered = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=80)
        y = 10 * (0.6 * x + 0.8 * rng.normal(size=80))
        found = correlation.overall(["a", "b"] * 40, x, y)
        covered += found.low <= 0.6 <= found.high
    assert 0.88 <= covered / 120 <= 0.99


def test_the_same_data_gives_the_same_interval():
    assert metrics.auroc(*draw(1)) == metrics.auroc(*draw(1))


def test_r_is_pearsons():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    assert correlation.pearson(x, y) == pytest.approx(pearsonr(x, y).statistic)
    assert correlation.pearson(x, np.ones(50)) is None


def conditions(between, inside, seed=0):
    """Four conditions of 40 prompts; the score foretells the expression between and inside them so far."""
    rng, names, scores, expression = np.random.default_rng(seed), [], [], []
    for i in range(4):
        noise = rng.normal(0, 8, 40)
        names += [f"c{i}"] * 40
        scores.append(i * between + noise * inside + rng.normal(0, 8, 40) * (1 - inside))
        expression.append(20 * i + noise + 20)
    return names, np.concatenate(scores), np.concatenate(expression)


def test_between_conditions_alone_gives_a_high_r_and_none_within():
    names, score, expression = conditions(between=20, inside=0.0)
    assert correlation.overall(names, score, expression).value > 0.85
    assert abs(correlation.within(names, score, expression).value) < 0.2


def test_within_conditions_finds_what_is_inside_them():
    names, score, expression = conditions(between=0, inside=0.9)
    assert correlation.within(names, score, expression).value > 0.9
    assert correlation.overall(names, score, expression).value < 0.6


def test_within_leaves_out_conditions_whose_expression_does_not_vary():
    names, score, expression = conditions(between=0, inside=0.9)
    rng = np.random.default_rng(1)
    flat = rng.normal(0, 0.5, 40)
    more = [*names, *["flat"] * 40], np.r_[score, rng.normal(0, 50, 40)], np.r_[expression, flat]
    assert {more[0][i] for i in correlation.varying(more[0], more[2])} == {"c0", "c1", "c2", "c3"}
    assert correlation.within(*more) == correlation.within(names, score, expression)


def test_within_is_none_where_every_condition_is_flat():
    assert correlation.within(["a"] * 9, np.arange(9.0), np.zeros(9)) is None


def test_the_label_alone_does_not_know_the_prompt_it_foretells():
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(100) for _ in range(4)]
    noise = rng.normal(0, 10, 400)
    assert correlation.label_alone(names, noise).value < 0.1
    found = correlation.label_alone(names, noise / 10 + np.repeat(np.arange(100.0), 4))
    assert found.low < found.value < found.high
    assert found.value > 0.9
    assert correlation.label_alone(["one"] * 400, noise) is None


def test_reliability_is_the_mean_r_of_two_replies_and_extends_by_spearman_brown():
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 10, 4000)
    replies = (truth[:, None] + rng.normal(0, 10, (4000, 4))).tolist()
    found = correlation.reliability(["c"] * 4000, replies)
    assert found.one == pytest.approx(0.5, abs=0.03)
    assert found.mean == pytest.approx(4 * found.one / (1 + 3 * found.one))
    assert found.within_one == pytest.approx(found.one, abs=0.01)
    assert correlation.reliability(["c"] * 2, [(1.0,), (2.0,)]) is None


def test_the_interval_of_an_auroc_is_that_of_sorted_resamples():
    positive, negative = draw(5, 30, 50, ties=True)
    assert metrics.auroc(positive, negative) == intervals.bootstrap(metrics.area, positive, negative)
