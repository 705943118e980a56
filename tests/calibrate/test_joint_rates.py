"""Rates for a whole set of policies keep their promise, by simulation with fixed seeds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import CALM

from guardrail.calibrate.joint_rates import Bar, Member, decimal_rate, entering_factors, joint_rates, ranks
from guardrail.calibration.benign import Benign
from guardrail.errors import CalibrationError
from guardrail.statistics.conformal import conformal_rank


def correlated(rng, n, policies, rho):
    """Scores [n, policies] that are standard normal, with the same correlation between any two."""
    shared = rng.normal(size=(n, 1))
    return math.sqrt(rho) * shared + math.sqrt(1 - rho) * rng.normal(size=(n, policies))


def single(scores, rates):
    return [Member(f"p{k}", (Bar(scores[:, k], rate),)) for k, rate in enumerate(rates)]


def fires(members, rates, kept, fresh):
    """[n]: whether any policy fires on fresh prompts, by the thresholds that the rates resolve to."""
    fired = np.zeros(len(fresh), bool)
    column = 0
    for member, own in zip(members, rates, strict=True):
        held = []
        for rate in own:
            held.append(fresh[:, column] >= Benign.of(kept[:, column]).conformal(rate))
            column += 1
        fired |= np.all(held, axis=0) if member.require_all else np.any(held, axis=0)
    return fired


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(("n", "target"), [(999, 0.02), (499, 0.05)])
def test_the_mean_rate_of_the_set_is_at_most_the_target_and_not_far_below(rho, n, target):
    found = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        kept, fresh = correlated(rng, n, 3, rho), correlated(rng, 4000, 3, rho)
        members = single(kept, (0.01, 0.01, 0.02))
        found.append(fires(members, joint_rates(members, target), kept, fresh).mean())
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) <= target + 3 * error
    assert np.mean(found) >= 0.85 * target - 3 * error


def test_all_of_and_any_of_count_as_the_policy_that_they_are():
    found = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        kept, fresh = correlated(rng, 999, 4, 0.5), correlated(rng, 4000, 4, 0.5)
        members = [
            Member("both", (Bar(kept[:, 0], 0.1), Bar(kept[:, 1], 0.1)), require_all=True),
            Member("either", (Bar(kept[:, 2], 0.01), Bar(kept[:, 3], 0.01)), require_all=False),
        ]
        found.append(fires(members, joint_rates(members, 0.03), kept, fresh).mean())
    error = np.std(found) / math.sqrt(len(found))
    assert 0.85 * 0.03 <= np.mean(found) <= 0.03 + 3 * error


def test_policies_that_always_fire_together_share_nothing_of_the_rate():
    scores = np.random.default_rng(0).normal(size=(1999, 1)).repeat(3, axis=1)
    rates = joint_rates(single(scores, (0.01, 0.01, 0.01)), 0.01)
    assert all(rate == pytest.approx(0.01, abs=1.1 / 2000) for (rate,) in rates)


def test_rates_keep_the_proportions_of_the_file():
    scores = correlated(np.random.default_rng(1), 9999, 2, 0.0)
    (strict,), (loose,) = joint_rates(single(scores, (0.001, 0.01)), 0.02)
    assert loose / strict == pytest.approx(10, rel=0.1)


def test_adding_a_policy_never_raises_the_others():
    scores = correlated(np.random.default_rng(2), 1999, 3, 0.3)
    two = joint_rates(single(scores[:, :2], (0.01, 0.01)), 0.02)
    three = joint_rates(single(scores, (0.01, 0.01, 0.01)), 0.02)
    assert three[0] <= two[0]
    assert three[1] <= two[1]


def test_calibration_prompts_that_fire_stay_inside_the_budget():
    scores = correlated(np.random.default_rng(3), 1999, 3, 0.4)
    members = single(scores, (0.01, 0.02, 0.005))
    fired = fires(members, joint_rates(members, 0.02), scores, scores)
    assert 0 < fired.sum() <= 0.02 * 2000 - 1


def test_too_few_prompts_say_how_many_are_needed():
    scores = correlated(np.random.default_rng(4), 150, 2, 0.0)
    with pytest.raises(CalibrationError, match="needs at least 199 benign prompts, not 150"):
        joint_rates(single(scores, (0.01, 0.01)), 0.01)


def test_a_share_that_is_too_small_names_its_policy():
    scores = correlated(np.random.default_rng(5), 999, 2, 0.0)
    with pytest.raises(CalibrationError, match="p0: its share of the set's rate is"):
        joint_rates(single(scores, (0.0001, 0.01)), 0.01)


def test_ties_count_against_a_prompt():
    assert list(ranks(np.array([1.0, 3.0, 3.0, 2.0]))) == [4, 2, 2, 3]


def test_equal_scores_never_fire_on_more_than_the_target():
    kept = np.random.default_rng(6).integers(0, 40, size=(999, 2)).astype(float)
    for target in (0.02, 0.05, 0.1):
        rates = joint_rates(single(kept, (0.01, 0.01)), target)
        assert fires(single(kept, (0.01, 0.01)), rates, kept, kept).mean() <= target


def test_the_factor_of_a_prompt_is_where_it_starts_to_fire():
    scores = np.array([[3.0], [2.0], [1.0]])
    assert entering_factors(single(scores, (0.5,))) == pytest.approx([0.5, 1.0, 1.5])


@CALM
@given(n=st.integers(2, 20_000), share=st.floats(0.0001, 0.999))
def test_a_decimal_rate_resolves_to_its_count(n, share):
    count = max(1, math.floor(share * n))
    rate = decimal_rate(count, n)
    assert 0 < rate < 1
    assert n + 1 - conformal_rank(n, rate) == count
