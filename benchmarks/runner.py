"""Runs cases one after another into rows. A case whose result is wrong is an error, not a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from benchmarks.subjects import Subject
from guardrail.bench.cases import Case
from guardrail.bench.clocks import Stopwatch
from guardrail.bench.goals import Goal
from guardrail.bench.pairs import PAIRS, WARM_UP, Recorded, measure, total
from guardrail.bench.results import Row, measured

COUPLES = 4


class WrongResult(AssertionError):
    """A guarded call gave a wrong result, so its time means nothing."""


class Twins(Protocol):
    """A dataclass with a model to guard and one like it; goals by case."""

    name: str
    model: Any
    bare: Any
    goals: Mapping[str, Goal]


T = TypeVar("T", bound=Twins)


def pooled(
    build: Callable[[], T],
    cases: Callable[[T], Iterable[Case]],
    pairs: int = PAIRS,
    clock: Stopwatch | None = None,
    say: Callable[[str], object] = print,
) -> Iterator[Row]:
    """The pairs of several couples of models built alike, together; every other couple changes its roles.

    Where a model happens to lie in memory makes it up to a percent faster or slower than its twin, and pairs
    of the same two models cannot tell that from the guard.
    """
    found: dict[str, list[Recorded]] = {}
    for couple in range(COUPLES):
        subject = build() if couple % 2 else swapped(build())
        for case in cases(subject):
            say(f"{subject.name}: {case.name} ({couple + 1} of {COUPLES})")
            found.setdefault(case.name, []).append(timed(subject, case, -(-pairs // COUPLES), clock))
    for name, parts in found.items():
        timings = Recorded.together(parts).timings(total)
        yield measured(f"{subject.name}: {name}", timings, subject.goals.get(name))


def swapped(subject: T) -> T:
    """The couple with the other model under guard."""
    return replace(subject, model=subject.bare, bare=subject.model)


def row(subject: Subject, case: Case, pairs: int = PAIRS, clock: Stopwatch | None = None) -> Row:
    """One case of one model."""
    recorded = timed(subject, case, pairs, clock)
    return measured(f"{subject.name}: {case.name}", recorded.timings(total), subject.goals.get(case.name))


def timed(subject: Twins, case: Case, pairs: int, clock: Stopwatch | None) -> Recorded:
    """Check a case, then measure it."""
    if not case.holds(case.guarded(), case.bare()):
        raise WrongResult(f"{subject.name}: {case.name}")
    return measure(case.guarded, case.bare, pairs, min(WARM_UP, pairs), clock)
