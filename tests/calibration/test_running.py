"""Running statistics: what they are, and that the device computes the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import CALM

from guardrail.calibration.running import highest, lowest, running
from guardrail.engines.transformers.running import Statistics
from guardrail.policy.model import Monitor

VALUES = np.asarray([1.0, -2.0, 4.0, 0.0, 3.0])


def test_a_mean_is_over_the_window_or_over_what_there_is():
    assert running(VALUES, "mean", 2) == pytest.approx([1.0, -0.5, 1.0, 2.0, 1.5])


def test_a_maximum_is_forgotten_when_it_leaves_the_window():
    assert running(VALUES, "max", 2) == pytest.approx([1.0, 1.0, 4.0, 4.0, 3.0])


def test_an_ema_starts_at_the_first_token():
    assert running(VALUES, "ema", 3) == pytest.approx([1.0, -0.5, 1.75, 0.875, 1.9375])


def test_whole_numbers_and_replies_without_tokens_are_read():
    assert running(np.asarray([1, 2]), "ema", 3).tolist() == [1.0, 1.5]
    assert running(np.asarray([]), "ema", 3).tolist() == []
    assert running(np.asarray([]), "mean", 3).tolist() == []


def test_the_lowest_mirrors_the_highest():
    assert highest(VALUES, "mean", 2) == pytest.approx(2.0)
    assert lowest(VALUES, "mean", 2) == pytest.approx(-0.5)
    assert lowest(VALUES, "max", 1) == pytest.approx(-2.0)


MONITORS = st.builds(Monitor, statistic=st.sampled_from(["mean", "max", "ema"]), window=st.integers(1, 6))


@CALM
@given(st.lists(MONITORS, min_size=1, max_size=4), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_the_device_computes_the_same(monitors, tokens, rows, seed):
    scores = np.random.default_rng(seed).normal(size=(tokens, rows, len(monitors))).astype(np.float32)
    statistics = Statistics(monitors)
    found = np.stack([statistics(torch.from_numpy(token)).numpy() for token in scores])
    for column, monitor in enumerate(monitors):
        for row in range(rows):
            expected = running(scores[:, row, column], monitor.statistic, monitor.window)
            assert found[:, row, column] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("statistic", ["mean", "ema"])
def test_what_is_no_number_stays_in_the_statistic(statistic):
    statistics = Statistics([Monitor(statistic=statistic, window=4)])
    values = [float(statistics(torch.tensor([[value]]))) for value in (1.0, float("nan"), 1.0)]
    assert np.isnan(values[1:]).all()
