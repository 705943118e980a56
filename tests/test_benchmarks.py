"""The benchmark's statistics and its runners, on timings that are known beforehand."""

import gc
import json

import numpy as np
import pytest

from benchmarks import gpu, results
from benchmarks.cases import Case, engine_cases
from benchmarks.pairs import Goal, Interval, Timings, added, interval, measure, ratio
from benchmarks.readme import README, filled, read
from benchmarks.runner import COUPLES, WrongResult, pooled, row
from benchmarks.subjects import subject
from guardrail.testing import tiny_model, tiny_tokenizer

AT_MOST = Goal(kind="at most", value=1.03)


class FakeClock:
    """Time that passes only when somebody works: each call says how long it takes."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def working(self, name, ms):
        def work():
            self.order.append(name)
            self.now += ms() if callable(ms) else ms

        return work

    def __call__(self, call):
        start = self.now
        call()
        return self.now - start


@pytest.fixture(scope="module")
def tiny():
    return subject("tiny", tiny_model, tiny_tokenizer(), prompt=6, new_tokens=3)


def drifting(slope, noise, seed):
    """Milliseconds of a machine that gets slower all the time."""
    random, calls = np.random.default_rng(seed), iter(range(10_000))
    return lambda: (10.0 + slope * next(calls)) * random.normal(1.0, noise)


def test_a_known_ratio_is_found_without_spread():
    clock = FakeClock()
    timings = measure(clock.working("g", 11.0), clock.working("b", 10.0), pairs=20, clock=clock)
    assert ratio(timings).median == pytest.approx(1.1)
    assert ratio(timings).low == pytest.approx(ratio(timings).high)
    assert added(timings).median == pytest.approx(1.0)


def test_a_drifting_machine_does_not_move_the_ratio():
    clock, speed = FakeClock(), drifting(slope=0.1, noise=0.02, seed=1)
    guarded = clock.working("g", lambda: 1.05 * speed())
    found = ratio(measure(guarded, clock.working("b", speed), pairs=200, clock=clock))
    assert found.low <= 1.05 <= found.high
    assert found.high - found.low < 0.02


def test_the_order_within_a_pair_alternates_after_the_warm_up():
    clock = FakeClock()
    measure(clock.working("g", 1), clock.working("b", 1), pairs=4, warm_up=2, clock=clock)
    assert "".join(clock.order) == "gbgb" + "gbbggbbg"


def test_the_collector_is_off_in_a_pair_and_on_again_afterwards():
    seen = []
    measure(lambda: seen.append(gc.isenabled()), lambda: None, pairs=3, warm_up=0)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_the_collector_comes_back_after_an_error():
    def broken():
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        measure(broken, broken, pairs=1, warm_up=0)
    assert gc.isenabled()


def test_the_interval_covers_the_median_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [interval(random.normal(1.0, 0.1, 60)) for _ in range(60)]
    assert 0.87 <= np.mean([i.low <= 1.0 <= i.high for i in found]) <= 1.0


def test_the_interval_is_the_same_every_time():
    values = np.random.default_rng(3).normal(size=60)
    assert interval(values) == interval(values)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.0, 1.03, "pass"), (1.031, 1.05, "fail"), (1.02, 1.04, "inconclusive")],
)
def test_a_verdict_needs_the_whole_interval(low, high, expected):
    assert AT_MOST.verdict(Interval(median=(low + high) / 2, low=low, high=high)) == expected


@pytest.mark.parametrize(("low", "high", "expected"), [(0.99, 1.01, "pass"), (1.001, 1.01, "fail")])
def test_unchanged_means_one_within_the_interval(low, high, expected):
    goal = Goal(kind="within", value=1.0)
    assert goal.verdict(Interval(median=(low + high) / 2, low=low, high=high)) == expected


def test_every_case_of_the_engine_does_what_it_says(tiny):
    found = [row(tiny, case, pairs=2) for case in engine_cases(tiny)]
    assert [r.name.removeprefix("tiny: ") for r in found] == list(gpu.NAMES)


def test_the_pairs_of_several_couples_are_pooled_and_roles_change(tiny):
    clock, models, built = FakeClock(), [], iter((1.0, 1.1, 1.1, 1.2))

    def cases(couple):
        models.append(couple.model is tiny.model)
        return [
            Case(
                name="c",
                guarded=clock.working("g", next(built)),
                bare=clock.working("b", 1.0),
                holds=lambda a, b: True,
            )
        ]

    (found,) = pooled(lambda: tiny, cases, pairs=60, clock=clock, say=lambda _: None)
    assert (found.pairs, found.name, COUPLES) == (60, "tiny: c", 4)
    assert found.ratio.median == pytest.approx(1.1)
    assert models == [False, True, False, True]


def test_a_wrong_result_is_not_timed(tiny):
    case = Case(name="wrong", guarded=lambda: 1, bare=lambda: 2, holds=lambda a, b: a == b)
    with pytest.raises(WrongResult, match="tiny: wrong"):
        row(tiny, case, pairs=1)


def test_a_report_survives_its_json_file(tmp_path):
    rows = [
        results.measured("a", Timings((2.0, 2.0), (1.0, 1.0)), AT_MOST),
        results.not_measured("b", None, "no device"),
    ]
    written = results.report(rows, "cpu", "wall")
    results.write(written, tmp_path / "r.json")
    assert read(tmp_path / "r.json") == written
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["cases"][0]["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert written.not_measured == ("b",)


def test_what_was_not_measured_has_no_numbers():
    line = results.cells(results.not_measured("b", AT_MOST, "no device"))
    assert line == ("b", "not measured", "", "", "", "<= 1.03", "no device")


def test_the_gpu_benchmark_lists_every_row_of_both_shapes():
    rows = gpu.planned((gpu.SMALL, gpu.LARGE))
    assert len(rows) == 14
    assert {r.verdict for r in rows} == {"not measured"}


def test_the_tables_of_the_readme_are_those_of_the_results():
    text = README.read_text(encoding="utf-8")
    assert filled(text) == text
