"""Alarms over conversations, against sums done by hand."""

import math

import numpy as np
import pytest

from guardrail.policy.alarms import Drift, DriftState

CUSUM = Drift(statistic="cusum", reading=0, k=0.5)
EWMA = Drift(statistic="ewma", reading=0, weight=0.2)


def test_cusum_adds_what_is_beyond_k_and_never_goes_below_zero():
    state, levels = DriftState(), []
    for z in (1.0, 2.0, -5.0, 0.4, 1.5):
        state = CUSUM.step(state, z)
        levels.append(CUSUM.value(state))
    assert levels == pytest.approx([0.5, 2.0, 0.0, 0.0, 1.0])
    assert state.turns == 5


def test_ewma_is_in_its_own_standard_deviations():
    first = EWMA.run([1.5])
    assert first == pytest.approx(1.5), "the first reply's average is w z, and its deviation w"
    expected = (0.2 * 0.8 * 1.0 + 0.2 * 2.0) / math.sqrt(0.2 / 1.8 * (1 - 0.8**4))
    assert EWMA.run([1.0, 2.0]) == pytest.approx(expected)


def test_ewma_of_noise_has_unit_variance_whatever_its_age():
    noise = np.random.default_rng(0).normal(size=(4000, 12))
    for turns in (1, 3, 12):
        assert np.std([EWMA.run(row[:turns]) for row in noise]) == pytest.approx(1.0, rel=0.05)


def test_cusum_rarely_fires_on_noise_and_soon_on_a_shift():
    rng = np.random.default_rng(1)
    noise = [max(CUSUM.run(row[: i + 1]) for i in range(20)) for row in rng.normal(size=(300, 20))]
    shift = [CUSUM.run(row) for row in rng.normal(1.5, size=(300, 12))]
    assert np.mean(np.asarray(noise) >= 5) < 0.05
    assert np.mean(np.asarray(shift) >= 5) > 0.95


@pytest.mark.parametrize("drift", [CUSUM, EWMA])
def test_before_the_first_reply_there_is_no_drift(drift):
    assert drift.value(DriftState()) == 0.0


@pytest.mark.parametrize("drift", [CUSUM, EWMA])
def test_what_is_no_number_is_not_forgotten(drift):
    assert math.isnan(drift.run([0.0, math.nan, 0.0]))
