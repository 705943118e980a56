"""Means and correlations of rows that come in blocks equal those of all rows at once."""

import numpy as np
import pytest
from scipy import stats

from guardrail.statistics.streams import Stream


def data(count=500):
    rng = np.random.default_rng(2)
    first = rng.normal(1e6, 2.0, count)
    return np.stack([first, 0.5 * first + rng.normal(size=count), np.full(count, 3.0)], axis=1)


def test_blocks_give_what_all_rows_give():
    rows = data()
    found = Stream.of(np.split(rows, [7, 8, 300]))
    for i in (0, 1):
        mean = found.mean(i)
        low, high = stats.t.interval(0.95, 499, rows[:, i].mean(), stats.sem(rows[:, i]))
        assert (mean.value, mean.low, mean.high) == pytest.approx((rows[:, i].mean(), low, high), rel=1e-12)
    r, wanted = found.correlation(0, 1), stats.pearsonr(rows[:, 0], rows[:, 1])
    low, high = wanted.confidence_interval()
    assert (r.value, r.low, r.high) == pytest.approx((wanted.statistic, low, high), abs=1e-6)


def test_rows_with_gaps_are_left_out_and_nothing_is_made_of_few_rows():
    rows = data(9)
    rows[4, 1] = np.nan
    assert Stream.of([rows]).count == 8
    assert Stream.of([rows]).correlation(0, 2) is None
    assert Stream.of([rows[:3]]).correlation(0, 1) is None
    assert Stream.of([rows[:1]]).mean(0) is None
    assert Stream.of([]).mean(0) is None


def test_a_perfect_correlation_stays_within_its_interval():
    values = np.arange(10.0)
    r = Stream.of([np.stack([values, values], axis=1)]).correlation(0, 1)
    assert r.low <= r.value <= r.high
    assert r.value == pytest.approx(1)
