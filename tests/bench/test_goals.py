"""Goals and gates: the whole interval decides."""

import pytest

from guardrail.bench.goals import Goal, gate, worst
from guardrail.bench.ratios import Interval

FAR = Interval(median=0.0, low=0.0, high=0.0)


def around(low, high):
    return Interval(median=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.0, 1.05, "pass"), (1.051, 1.2, "fail"), (1.04, 1.06, "inconclusive")],
)
def test_a_gate_in_percent_needs_the_whole_interval(low, high, expected):
    assert gate(5.0, None).verdict(around(low, high), FAR) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.2, 0.5, "pass"), (0.51, 0.9, "fail"), (0.4, 0.6, "inconclusive")],
)
def test_a_gate_in_milliseconds_judges_the_added_time(low, high, expected):
    assert gate(None, 0.5).verdict(around(1.9, 2.1), around(low, high)) == expected


def test_of_two_gates_the_worse_verdict_counts():
    both = gate(5.0, 0.5)
    assert both.verdict(around(1.0, 1.01), around(0.6, 0.7)) == "fail"
    assert both.verdict(around(1.04, 1.06), around(0.1, 0.2)) == "inconclusive"
    assert both.verdict(around(1.0, 1.01), around(0.1, 0.2)) == "pass"


def test_without_a_limit_there_is_no_gate():
    assert gate(None, None) is None


def test_a_goal_allows_its_slack_and_no_more():
    goal = Goal(value=1.005, slack=0.01)
    assert goal.verdict(around(1.0, 1.015)) == "pass"
    assert goal.verdict(around(1.0, 1.016)) == "inconclusive"
    assert goal.verdict(around(1.0151, 1.02)) == "fail"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.98, 1.0, "pass"), (0.97, 0.99, "inconclusive"), (0.9, 0.979, "fail")],
)
def test_throughput_is_to_be_at_least_the_goal(low, high, expected):
    assert Goal(kind="at least", value=0.99, slack=0.01).verdict(around(low, high)) == expected


@pytest.mark.parametrize(("low", "high", "expected"), [(0.99, 1.01, "pass"), (1.001, 1.01, "fail")])
def test_unchanged_means_one_within_the_interval(low, high, expected):
    assert Goal(kind="within", value=1.0).verdict(around(low, high)) == expected


def test_the_worst_verdict_of_none_is_no_goal():
    assert worst([]) == "no goal"
    assert worst(["pass", "inconclusive", "no goal"]) == "inconclusive"


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (Goal(value=1.01, added_ms=0.2), "<= 1.01, +0.2 ms"),
        (Goal(kind="at least", value=0.99), ">= 0.99"),
        (Goal(kind="within", value=1.0), "1.00 within"),
        (Goal(added_ms=0.5), "+0.5 ms"),
    ],
)
def test_a_goal_is_shown_as_people_write_it(goal, text):
    assert str(goal) == text
