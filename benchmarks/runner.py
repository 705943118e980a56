"""Runs cases one after another into rows. A case whose result is wrong is an error, not a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.cases import Case
from benchmarks.pairs import PAIRS, WARM_UP, Clock, measure, wall_clock
from benchmarks.results import Row, measured
from benchmarks.subjects import Subject


class WrongResult(AssertionError):
    """A guarded call did not do what its case says, so that its time means nothing."""


def rows(
    subject: Subject, cases: Iterable[Case], pairs: int = PAIRS, clock: Clock = wall_clock
) -> Iterator[Row]:
    """Measure each case when it is made."""
    for case in cases:
        yield row(subject, case, pairs, clock)


def row(subject: Subject, case: Case, pairs: int = PAIRS, clock: Clock = wall_clock) -> Row:
    """Check one case, then measure it."""
    name = f"{subject.name}: {case.name}"
    if not case.holds(case.guarded(), case.bare()):
        raise WrongResult(name)
    timings = measure(case.guarded, case.bare, pairs, min(WARM_UP, pairs), clock)
    return measured(name, timings, subject.goals.get(case.name))
