"""Permutation tests: against exact enumeration and scipy, and under the null."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from guardrail.statistics.permutation import false_discovery, hedges_g, one_sample, paired_d, two_sample

RNG = np.random.default_rng(1)


def test_two_samples_as_by_enumeration():
    rows = RNG.normal(size=(9, 3)) + np.array([0, 1, 2]) * (np.arange(9) < 4)[:, None]
    found = two_sample(rows[:4], rows[4:])
    observed = np.abs(rows[:4].mean(0) - rows[4:].mean(0))
    every = [np.abs(rows[list(c)].mean(0) - np.delete(rows, c, 0).mean(0)) for c in combinations(range(9), 4)]
    assert found == pytest.approx((np.array(every) >= observed - 1e-12).mean(0), abs=0.01)


def test_signs_as_by_enumeration():
    rows = RNG.normal(0.5, size=(8, 2))
    every = np.abs([np.array(signs) @ rows for signs in product((-1, 1), repeat=8)])
    assert one_sample(rows) == pytest.approx((every >= np.abs(rows.sum(0)) - 1e-12).mean(0), abs=0.01)


def test_p_is_even_under_the_null_and_never_0():
    p = two_sample(RNG.normal(size=(10, 400)), RNG.normal(size=(12, 400)))
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert two_sample(np.full((30, 1), 9.0) + RNG.normal(size=(30, 1)), RNG.normal(size=(30, 1)))[0] > 0


def test_nothing_differs_in_constant_columns():
    same = np.ones((5, 2))
    assert two_sample(same, same).tolist() == one_sample(0 * same).tolist() == [1, 1]
    assert hedges_g(same, same).tolist() == paired_d(same).tolist() == [0, 0]


def test_effects_are_in_standard_deviations():
    first, second = RNG.normal(1, 2, (500, 1)), RNG.normal(0, 2, (600, 1))
    assert hedges_g(first, second)[0] == pytest.approx(0.5, abs=0.15)
    assert paired_d([[1.0], [2.0], [3.0]])[0] == pytest.approx(2.0)


def test_adjusted_p_are_those_of_benjamini_and_hochberg():
    assert false_discovery([[0.01, 0.04], [0.03, 0.005]]) == pytest.approx(
        np.array([[0.02, 0.04], [0.04, 0.02]])
    )
