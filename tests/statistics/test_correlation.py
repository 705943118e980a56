"""Correlation at its boundaries: the fewest prompts, the flattest conditions, the predictions of a label."""

import numpy as np
import pytest

from guardrail.statistics import correlation
from guardrail.statistics.intervals import Estimate


def test_three_prompts_that_vary_by_exactly_one_are_enough_for_a_condition():
    names = ["few", "few", *["just"] * 3, *["flat"] * 3]
    expression = np.asarray([0.0, 90.0, 0.0, 1.0, 2.0, 0.0, 0.9, 1.8])
    assert correlation.varying(names, expression) == [2, 3, 4]


def test_three_prompts_are_the_fewest_for_an_estimate():
    line = np.arange(3.0)
    assert correlation.overall(["a"] * 3, line, line).value == 1.0
    assert correlation.overall(["a"] * 2, line[:2], line[:2]) is None


def test_resamples_in_which_nothing_varies_count_as_no_correlation():
    line = np.arange(3.0)
    assert correlation.overall(["a"] * 3, line, line) == Estimate(1.0, 0.0, pytest.approx(1.0))


def test_a_score_that_only_knows_the_condition_has_no_correlation_within_it():
    names, expression = ["a"] * 4 + ["b"] * 4, np.asarray([0.0, 2, 4, 6, 10, 12, 14, 16])
    score = np.asarray([1.0] * 4 + [5.0] * 4)
    assert correlation.overall(names, score, expression).value > 0.8
    assert correlation.within(names, score, expression) is None


def test_r_does_not_depend_on_the_unit():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    assert correlation.pearson(x / 1e4, y / 1e4) == pytest.approx(correlation.pearson(x, y))


def test_ranks_correlate_whatever_the_distances_and_not_if_nothing_varies():
    assert correlation.spearman([1, 2, 30, 4], [1, 2, 1e9, 5]) == pytest.approx(1)
    assert correlation.spearman([1, 1, 2], [3, 4, 5]) == pytest.approx(np.sqrt(3) / 2)
    assert correlation.spearman([1, 1, 1], [3, 4, 5]) is None
    assert correlation.spearman([1], [3]) is None


def test_values_are_centred_on_the_mean_of_their_condition_column_by_column():
    names = ["a", "b", "a"]
    assert correlation.centred(names, [1, 10, 2]).tolist() == [-0.5, 0.0, 0.5]
    table = np.asarray([[1, 0], [10, 50], [3, 100]])
    assert correlation.centred(names, table).tolist() == [[-1.0, -50.0], [0.0, 0.0], [1.0, 50.0]]


def test_the_label_foretells_a_prompt_by_the_mean_of_the_others_under_its_condition():
    names = ["a", "a", "b", "b", "b", "alone"]
    expression = np.asarray([1.0, 3.0, 10.0, 12.0, 17.0, 500.0])
    foretold = np.asarray([3.0, 1.0, 14.5, 13.5, 11.0])
    found = correlation.label_alone(names, expression)
    assert found.value == pytest.approx(correlation.pearson(foretold, expression[:5]))


def test_the_label_foretells_from_three_prompts_on():
    assert correlation.label_alone(["a", "a", "a", "b"], np.asarray([1.0, 2, 3, 4])).value == pytest.approx(
        -1
    )
    assert correlation.label_alone(["a", "a", "b"], np.asarray([1.0, 2, 3])) is None


def test_two_replies_are_enough_for_a_reliability():
    replies = [(0, 0), (10, 10), (50, 50), (60, 60)]
    found = correlation.reliability(["a", "a", "b", "b"], replies)
    assert found == correlation.Reliability(2, pytest.approx(1.0), pytest.approx(1.0), None, None)


def test_reliability_within_conditions_leaves_out_what_lies_between_them():
    first, second = np.asarray([0.0, 2, 4, 100, 102, 104]), np.asarray([0.0, 4, 2, 100, 104, 102])
    found = correlation.reliability(["a"] * 3 + ["b"] * 3, list(zip(first, second, strict=True)))
    assert found.replies == 2
    assert found.one > 0.99
    assert found.within_one == pytest.approx(0.5)
    assert found.within_mean == pytest.approx(2 / 3)


def test_no_reliability_if_nothing_varies_or_the_numbers_of_replies_differ():
    assert correlation.reliability(["c"] * 3, [(1.0, 1.0)] * 3) is None
    assert correlation.reliability(["c"] * 3, [(1.0, 2.0), (2.0, 3.0), (5.0,)]) is None
