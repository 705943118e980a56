"""Ratios and intervals from timings that are known beforehand, and the order in which calls are made."""

import gc

import numpy as np
import pytest

from guardrail.bench.clocks import CudaStopwatch, HostStopwatch, Laps, clock_of, token_marks
from guardrail.bench.pairs import Recorded, Side, first, measure, per_token, record, steps, total
from guardrail.bench.ratios import Timings, added, interval, percentiles, ratio


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
        return Laps(self.now - start)

    def mark(self):
        return None


def drifting(slope, noise, seed):
    """Milliseconds of a machine that gets slower all the time."""
    random, calls = np.random.default_rng(seed), iter(range(10_000))
    return lambda: (10.0 + slope * next(calls)) * random.normal(1.0, noise)


def test_a_known_ratio_is_found_without_spread():
    clock = FakeClock()
    recorded = measure(clock.working("g", 11.0), clock.working("b", 10.0), pairs=20, clock=clock)
    timings = recorded.timings(total)
    assert ratio(timings).median == pytest.approx(1.1)
    assert ratio(timings).low == pytest.approx(ratio(timings).high)
    assert added(timings).median == pytest.approx(1.0)


def test_a_drifting_machine_does_not_move_the_ratio():
    clock, speed = FakeClock(), drifting(slope=0.1, noise=0.02, seed=1)
    guarded = clock.working("g", lambda: 1.05 * speed())
    recorded = measure(guarded, clock.working("b", speed), pairs=200, clock=clock)
    found = ratio(recorded.timings(total))
    assert found.low <= 1.05 <= found.high
    assert found.high - found.low < 0.02


def test_the_interval_covers_the_known_ratio_as_often_as_it_says():
    random, found = np.random.default_rng(0), []
    for _ in range(120):
        speed = random.gamma(50, 0.2, 60)  # what a machine does to both calls of a pair
        noise = random.lognormal(0.0, 0.03, (2, 60))
        found.append(ratio(Timings(tuple(1.02 * speed * noise[0]), tuple(speed * noise[1]))))
    covered = np.mean([i.low <= 1.02 <= i.high for i in found])
    assert 0.88 <= covered <= 1.0
    assert not np.mean([i.low <= 1.06 <= i.high for i in found]) > 0.01


def test_the_interval_is_the_same_every_time():
    values = np.random.default_rng(3).normal(size=60)
    assert interval(values) == interval(values)


def test_percentiles_are_those_of_all_values():
    found = percentiles([float(i) for i in range(101)])
    assert (found.p50, found.p95, found.p99) == (50.0, 95.0, 99.0)


def test_the_order_within_a_pair_alternates_after_the_warm_up():
    clock = FakeClock()
    measure(clock.working("g", 1), clock.working("b", 1), pairs=4, warm_up=2, clock=clock)
    assert "".join(clock.order) == "gbgb" + "gbbggbbg"


def test_a_third_call_is_timed_in_the_same_rounds():
    clock = FakeClock()
    sides = [Side(clock.working(name, ms)) for name, ms in (("g", 2.0), ("b", 1.0), ("o", 5.0))]
    found = record(sides, pairs=2, warm_up=0, clock=clock)
    assert "".join(clock.order) == "gbo" + "obg"
    assert [laps.total for laps in found.others[0]] == [5.0, 5.0]


def test_what_comes_before_a_call_is_not_timed():
    clock = FakeClock()
    side = Side(clock.working("g", 1.0), before=clock.working("p", 100.0))
    found = record([side, Side(clock.working("b", 1.0))], pairs=3, warm_up=0, clock=clock)
    assert {laps.total for laps in found.guarded} == {1.0}
    assert "".join(clock.order) == "pgb" + "bpg" + "pgb"


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


def test_recordings_are_pooled_in_order():
    one, two = (Recorded((Laps(ms),), (Laps(1.0),)) for ms in (2.0, 3.0))
    assert Recorded.together([one, two]).timings(total) == Timings((2.0, 3.0), (1.0, 1.0))


def test_a_stopwatch_notes_marks_from_the_start_of_its_call():
    moments = iter([10.0, 10.5, 10.75, 11.0])
    clock = HostStopwatch(lambda: next(moments))
    assert clock(lambda: (clock.mark(), clock.mark())) == Laps(1000.0, (500.0, 750.0))


def test_marks_give_the_first_token_and_the_time_per_token():
    laps = Laps(100.0, (40.0, 50.0, 70.0))
    assert (first(laps), per_token(laps), steps(laps)) == (40.0, 15.0, (10.0, 20.0))


def test_every_token_of_a_reply_is_marked_and_none_is_changed():
    import torch

    from guardrail.bench.cases import endless, greedy, inputs
    from guardrail.testing import tiny_model

    model, clock = endless(tiny_model()), HostStopwatch()
    batch = inputs(model, tokens=6, rows=2)
    plain = model.generate(**greedy(batch, 5))
    outputs = []
    laps = clock(lambda: outputs.append(model.generate(**greedy(batch, 5, clock))))
    assert torch.equal(outputs[0], plain)
    assert len(laps.marks) == 5
    assert sorted(laps.marks) == list(laps.marks)
    assert laps.marks[-1] <= laps.total
    assert not token_marks(clock)(batch["input_ids"], None).any()


class FakeDevice:
    """A device whose events come one millisecond apart; what the host waits for is written down."""

    def __init__(self):
        self.log, self.now = [], 0.0

    def synchronize(self):
        self.log.append("wait for all")

    def event(self, enable_timing):
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, device):
        self.device, self.at = device, None

    def record(self):
        self.device.now += 1.0
        self.at = self.device.now
        self.device.log.append("event")

    def synchronize(self):
        self.device.log.append("wait for the last")

    def elapsed_time(self, other):
        return other.at - self.at


def test_on_cuda_the_host_waits_before_the_call_and_after_all_of_it_is_queued(monkeypatch):
    import torch

    device, clock = FakeDevice(), CudaStopwatch()
    monkeypatch.setattr(torch.cuda, "synchronize", device.synchronize)
    monkeypatch.setattr(torch.cuda, "Event", device.event)

    def call():
        device.log.append("call")
        clock.mark()
        clock.mark()

    assert clock(call) == Laps(3.0, (1.0, 2.0))
    assert device.log == ["wait for all", "event", "call", "event", "event", "event", "wait for the last"]


def test_each_device_has_its_clock():
    assert clock_of("cpu")[0] == "wall"
    assert clock_of("cuda:1")[0] == "events"
    assert isinstance(clock_of("cuda")[1], CudaStopwatch)
