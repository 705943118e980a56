"""Bootstrap intervals: their percentiles, what is resampled, and the exact interval of a rate."""

from itertools import count

import numpy as np
import pytest
from scipy.stats import beta

from guardrail.statistics.intervals import (
    Estimate,
    bootstrap,
    clustered_mean,
    column_means,
    difference,
    mean,
    numbers,
    rate,
)


def test_the_interval_lies_between_the_2_5th_and_the_97_5th_percentile_of_1000_resamples():
    values = count(1)
    assert bootstrap(lambda _: float(next(values)), np.zeros(3)) == Estimate(1001.0, 25.975, 975.025)


def test_every_row_may_be_drawn():
    drawn = bootstrap(lambda rows: float(rows.max()), np.asarray([5.0, 0.0]))
    assert (drawn.low, drawn.high) == (0.0, 5.0)
    assert bootstrap(lambda rows: float(rows.max()), np.asarray([0.0, 5.0])).high == 5.0


def test_strata_are_resampled_by_themselves_and_keep_their_sizes():
    sizes = set()
    bootstrap(lambda a, b: sizes.add((len(a), len(b), a.max() < b.min())) or 0.0, np.zeros(3), np.ones(7))
    assert sizes == {(3, 7, True)}


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = mean(values.tolist())
    error = values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_numbers_are_float64():
    assert numbers([1, 2]).dtype == np.float64
    assert numbers([1, 2]).tolist() == [1.0, 2.0]


def test_a_rate_has_the_clopper_pearson_interval():
    found = rate([True, True, True, *[False] * 7])
    assert found.value == 0.3
    assert found.low == pytest.approx(beta.ppf(0.025, 3, 8))
    assert found.high == pytest.approx(beta.ppf(0.975, 4, 7))


@pytest.mark.parametrize("size", [1, 3, 24, 2000])
def test_means_of_many_draws_at_once_are_those_of_one_after_another(size):
    values = np.random.default_rng(2).normal(size=size)
    one_by_one = bootstrap(lambda rows: float(rows.mean()), values)
    assert mean(values) == one_by_one
    (column,) = column_means(values[:, None])
    assert (column.value, column.low, column.high) == pytest.approx(
        (one_by_one.value, one_by_one.low, one_by_one.high), abs=1e-12
    )


def test_a_difference_of_two_means_has_the_interval_of_independent_ones():
    apart = difference(Estimate(5.0, 2.0, 9.0), Estimate(1.0, -3.0, 4.0))
    assert apart.value == 4.0
    # 3 and 3, 4 and 4: the legs of right triangles
    assert (apart.low, apart.high) == pytest.approx((4 - 18**0.5, 4 + 32**0.5))


def test_a_difference_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    pairs = [(mean_of(rng.normal(1, 1, 30)), mean_of(rng.normal(0, 3, 20))) for _ in range(400)]
    held = [apart.low <= 1 <= apart.high for apart in (difference(*pair) for pair in pairs)]
    assert 0.92 <= np.mean(held) <= 0.98


def mean_of(values):
    return clustered_mean(values, np.arange(len(values)))
