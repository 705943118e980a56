"""Alternating pairs of (guarded, bare) in one process, and what they say: a ratio with its interval.

Knows nothing of models. Machines slow down and speed up while a benchmark runs; two calls right after one
another share that, so each pair gives one ratio, and the median over pairs is what is reported. The order
within a pair alternates (ABBA), so that whoever goes second has no advantage.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Call: TypeAlias = Callable[[], object]
Clock: TypeAlias = Callable[[Call], float]
"""Runs a call and says how many milliseconds it took."""
Verdict: TypeAlias = Literal["pass", "fail", "inconclusive", "no goal", "not measured"]

PAIRS, WARM_UP, RESAMPLES, SEED = 60, 5, 5000, 0
LEVEL = 95.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds, one entry for each pair."""

    guarded: tuple[float, ...]
    bare: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A median over pairs with its bootstrap interval of 95 %."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a ratio is to be: `at most` the value, or the same `within` the interval."""

    kind: Literal["at most", "within"]
    value: float

    def verdict(self, ratio: Interval) -> Verdict:
        """`inconclusive` where the interval holds the limit."""
        if self.kind == "within":
            return "pass" if ratio.low <= self.value <= ratio.high else "fail"
        if ratio.high <= self.value:
            return "pass"
        return "fail" if ratio.low > self.value else "inconclusive"


def wall_clock(call: Call) -> float:
    """For work that is done when the call returns."""
    start = perf_counter()
    call()
    return (perf_counter() - start) * 1e3


def cpu_clock(call: Call) -> float:
    """The processor time of this process: what a busy machine adds to the wall clock is left out."""
    start = process_time()
    call()
    return (process_time() - start) * 1e3


def cuda_clock(call: Call) -> float:
    """From an idle device to the end of everything that the call has queued, host time included."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def measure(
    guarded: Call, bare: Call, pairs: int = PAIRS, warm_up: int = WARM_UP, clock: Clock = wall_clock
) -> Timings:
    """Time `pairs` pairs after `warm_up` calls of each."""
    for _ in range(warm_up):
        guarded(), bare()
    with _without_collector():
        return _timed(guarded, bare, pairs, clock)


def _timed(guarded: Call, bare: Call, pairs: int, clock: Clock) -> Timings:
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        gc.collect()
        order = ((0, guarded), (1, bare))
        for side, call in order if pair % 2 == 0 else reversed(order):
            times[side].append(clock(call))
    return Timings(tuple(times[0]), tuple(times[1]))


@contextmanager
def _without_collector() -> Iterator[None]:
    """What is alive is frozen, so that the collection before each pair is short; none runs within one."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def ratio(timings: Timings) -> Interval:
    """Guarded / bare, pair by pair."""
    return interval(np.asarray(timings.guarded) / np.asarray(timings.bare))


def added(timings: Timings) -> Interval:
    """Guarded - bare in milliseconds, pair by pair."""
    return interval(np.asarray(timings.guarded) - np.asarray(timings.bare))


def interval(values: NDArray[np.float64] | Sequence[float]) -> Interval:
    """The median and the percentiles of the medians of `RESAMPLES` resamples, with a fixed seed."""
    data = np.asarray(values, dtype=np.float64)
    rows = np.random.default_rng(SEED).integers(len(data), size=(RESAMPLES, len(data)))
    tail = (100.0 - LEVEL) / 2
    low, high = np.percentile(np.median(data[rows], axis=1), [tail, 100.0 - tail])
    return Interval(median=float(np.median(data)), low=float(low), high=float(high))
