"""Runs cases one after another into rows. A case whose result is wrong is an error, not a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from benchmarks.cases import Case
from benchmarks.pairs import PAIRS, WARM_UP, Clock, Timings, measure, wall_clock
from benchmarks.results import Row, measured
from benchmarks.subjects import Subject

COUPLES = 4


class WrongResult(AssertionError):
    """A guarded call did not do what its case says, so that its time means nothing."""


def pooled(
    build: Callable[[], Subject],
    cases: Callable[[Subject], Iterable[Case]],
    pairs: int = PAIRS,
    clock: Clock = wall_clock,
    say: Callable[[str], object] = print,
) -> Iterator[Row]:
    """The pairs of several couples of models built alike, together; every other couple changes its roles.

    Where a model happens to lie in memory makes it up to a percent faster or slower than its twin, and pairs
    of the same two models cannot tell that from the guard.
    """
    found: dict[str, list[Timings]] = {}
    for couple in range(COUPLES):
        subject = build() if couple % 2 else swapped(build())
        for case in cases(subject):
            say(f"{subject.name}: {case.name} ({couple + 1} of {COUPLES})")
            found.setdefault(case.name, []).append(timed(subject, case, -(-pairs // COUPLES), clock))
    for name, timings in found.items():
        yield measured(f"{subject.name}: {name}", _together(timings), subject.goals.get(name))


def swapped(subject: Subject) -> Subject:
    """The couple with the other model under guard."""
    return replace(subject, model=subject.bare, bare=subject.model)


def row(subject: Subject, case: Case, pairs: int = PAIRS, clock: Clock = wall_clock) -> Row:
    """One case of one model."""
    timings = timed(subject, case, pairs, clock)
    return measured(f"{subject.name}: {case.name}", timings, subject.goals.get(case.name))


def timed(subject: Subject, case: Case, pairs: int, clock: Clock) -> Timings:
    """Check a case, then measure it."""
    if not case.holds(case.guarded(), case.bare()):
        raise WrongResult(f"{subject.name}: {case.name}")
    return measure(case.guarded, case.bare, pairs, min(WARM_UP, pairs), clock)


def _together(timings: Iterable[Timings]) -> Timings:
    guarded = tuple(ms for some in timings for ms in some.guarded)
    return Timings(guarded, tuple(ms for some in timings for ms in some.bare))
