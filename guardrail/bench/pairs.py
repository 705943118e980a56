"""Times two or more calls in alternating rounds in one process.

Machines slow down and speed up during a benchmark, but consecutive calls are affected alike, so each round
gives one ratio. The order within a round alternates (ABBA), so that going second is no advantage.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from guardrail.bench.clocks import Call, Laps, Stopwatch, wall_clock
from guardrail.bench.ratios import Timings

PAIRS, WARM_UP = 60, 5
QUICK_PAIRS, QUICK_WARM_UP = 20, 2
"""Enough for a first look: the interval of a median of 20 ratios still holds 95 % of the time."""


def nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True)
class Side:
    """A call to time, and its preparation outside the timed region."""

    call: Call
    before: Callable[[], object] = nothing


@dataclass(frozen=True, slots=True)
class Recorded:
    """The laps of all pairs."""

    guarded: tuple[Laps, ...]
    bare: tuple[Laps, ...]
    others: tuple[tuple[Laps, ...], ...] = field(default=())

    @classmethod
    def together(cls, parts: Iterable[Recorded]) -> Recorded:
        """The pairs of several recordings as one."""
        found = list(parts)
        guarded = tuple(laps for part in found for laps in part.guarded)
        return cls(guarded, tuple(laps for part in found for laps in part.bare))

    def timings(self, of: Callable[[Laps], float]) -> Timings:
        """One number per call."""
        return Timings(tuple(map(of, self.guarded)), tuple(map(of, self.bare)))


def total(laps: Laps) -> float:
    """The time of the whole call, in ms."""
    return laps.total


def first(laps: Laps) -> float:
    """The time to the first token, in ms."""
    return laps.marks[0]


def per_token(laps: Laps) -> float:
    """The mean time of a token after the first, in ms."""
    return (laps.marks[-1] - laps.marks[0]) / (len(laps.marks) - 1)


def steps(laps: Laps) -> tuple[float, ...]:
    """The time of each token after the first, in ms."""
    return tuple(b - a for a, b in zip(laps.marks, laps.marks[1:], strict=False))


def measure(
    guarded: Call, bare: Call, pairs: int = PAIRS, warm_up: int = WARM_UP, clock: Stopwatch | None = None
) -> Recorded:
    """Time `pairs` pairs after `warm_up` calls of each."""
    return record([Side(guarded), Side(bare)], pairs, warm_up, clock)


def record(
    sides: Sequence[Side], pairs: int = PAIRS, warm_up: int = WARM_UP, clock: Stopwatch | None = None
) -> Recorded:
    """Like `measure`, for guarded, bare and other calls, each with its preparation."""
    for _ in range(warm_up):
        for side in sides:
            side.before()
            side.call()
    with without_collector():
        laps = _rounds(sides, pairs, clock or wall_clock())
    return Recorded(tuple(laps[0]), tuple(laps[1]), tuple(tuple(other) for other in laps[2:]))


def _rounds(sides: Sequence[Side], pairs: int, clock: Stopwatch) -> list[list[Laps]]:
    laps: list[list[Laps]] = [[] for _ in sides]
    for pair in range(pairs):
        gc.collect()
        order = list(enumerate(sides))
        for i, side in order if pair % 2 == 0 else reversed(order):
            side.before()
            laps[i].append(clock(side.call))
    return laps


@contextmanager
def without_collector() -> Generator[None]:
    """Freezes live objects, so that garbage collection before each round is short; none runs in a round.

    What the program itself has frozen stays so: there is no telling apart what to unfreeze.
    """
    theirs = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if not theirs:
            gc.unfreeze()
