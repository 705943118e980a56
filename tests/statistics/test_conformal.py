"""Ranks, how many prompts a rate needs, and intervals of rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from worlds import CALM

from guardrail.errors import CalibrationError
from guardrail.statistics.conformal import (
    conformal_rank,
    fpr_interval,
    observed_fpr,
    prompts_needed,
    rank_interval,
)


def test_the_interval_contains_the_rate_and_shrinks_with_n():
    widths = []
    for n in (200, 2000, 20_000):
        low, high = fpr_interval(n, 0.01)
        assert low < 0.01 < high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize(("fpr", "n"), [(0.01, 99), (0.001, 999), (0.05, 19), (0.5, 1), (0.3, 3)])
def test_the_prompts_needed_for_a_rate_are_the_fewest_that_a_rank_exists_for(fpr, n):
    assert prompts_needed(fpr) == n
    conformal_rank(n, fpr)
    if n > 1:
        with pytest.raises(CalibrationError):
            conformal_rank(n - 1, fpr)


@pytest.mark.parametrize(("fpr", "width"), [(0.01, 0.01), (0.01, 0.002), (0.05, 0.02), (0.01, 0.9)])
def test_the_prompts_needed_for_an_interval_give_one_no_wider(fpr, width):
    n = prompts_needed(fpr, width)
    low, high = fpr_interval(n, fpr)
    assert high - low <= width
    assert n == prompts_needed(fpr) or np.subtract(*fpr_interval(n - 1, fpr)[::-1]) > width


@CALM
@given(n=st.integers(2, 5000), fpr=st.floats(0.0005, 0.9))
def test_the_rank_is_split_conformal(n, fpr):
    try:
        rank = conformal_rank(n, fpr)
    except CalibrationError:
        assert (n + 1) * fpr < 1 + 1e-6
        return
    assert (n + 1 - rank) / (n + 1) <= fpr + 1e-9
    assert (n + 2 - rank) / (n + 1) > fpr - 1e-9


def test_an_observed_rate_has_an_exact_interval():
    rate, low, high = observed_fpr(0, 100)
    assert (rate, low) == (0, 0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-6)


def test_the_rate_of_a_threshold_is_a_beta_variable():
    # of 199 prompts, 10 of the 200 gaps lie beyond the 190th
    assert fpr_interval(199, 0.05) == pytest.approx(beta.ppf([0.025, 0.975], 10, 190))
    assert fpr_interval(199, 0.05, confidence=0.5) == pytest.approx(beta.ppf([0.25, 0.75], 10, 190))


def test_an_interval_exactly_as_wide_as_asked_is_narrow_enough():
    low, high = fpr_interval(130, 0.05, 0.8)
    assert prompts_needed(0.05, high - low, 0.8) == 130


def test_an_observed_rate_has_an_interval_for_any_confidence():
    rate, low, high = observed_fpr(3, 10, confidence=0.9)
    assert rate == 0.3
    assert (low, high) == pytest.approx((beta.ppf(0.05, 3, 8), beta.ppf(0.95, 4, 7)))


def test_the_quantile_of_fresh_scores_lies_between_the_ranks_as_often_as_promised():
    """David and Nagaraja (2003), 7.1: the chance that it does is that of a binomial count in between."""
    assert rank_interval(100, 0.05) == (90, 100)
    assert rank_interval(20, 0.01) == (19, 21)
    rng, n, fpr = np.random.default_rng(0), 200, 0.1
    low, high = rank_interval(n, fpr)
    samples = np.sort(rng.random((4000, n)), axis=1)
    inside = (samples[:, low - 1] <= 1 - fpr) & (1 - fpr <= samples[:, high - 1])
    assert 0.95 <= inside.mean() <= 0.98
