"""Means over clusters: replies to one question count as one."""

import numpy as np
import pytest
from scipy import stats

from guardrail.statistics.intervals import clustered_mean


def test_the_interval_is_students_over_the_means_of_clusters():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(8), 5)
    values = rng.normal(size=40) + rng.normal(size=8)[clusters]
    means = [values[clusters == one].mean() for one in range(8)]
    found = clustered_mean(values, clusters)
    low, high = stats.t.interval(0.95, 7, loc=np.mean(means), scale=stats.sem(means))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(means), low, high))


def test_repeating_the_replies_to_a_question_makes_nothing_surer():
    values, clusters = np.array([1.0, 4.0, 2.0]), np.array([0, 1, 2])
    assert clustered_mean(np.repeat(values, 9), np.repeat(clusters, 9)) == clustered_mean(values, clusters)


def test_one_cluster_has_no_interval():
    assert clustered_mean([1.0, 2.0], [3, 3]) is None
    assert clustered_mean([], []) is None


def test_it_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(10), 4)
    drawn = [rng.normal(size=40) + rng.normal(size=10)[clusters] for _ in range(400)]
    covered = [found.low <= 0 <= found.high for one in drawn if (found := clustered_mean(one, clusters))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
