"""The results of a run: rows and their origin, saved as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from guardrail.bench.goals import Goal, Verdict
from guardrail.bench.machine import Machine, commit, machine, versions
from guardrail.bench.ratios import Interval, Percentiles, Timings, added, percentiles, ratio

METHOD = "medians over alternating pairs with the bare model; intervals are 95 % bootstrap intervals"


@dataclass(frozen=True, slots=True)
class Point:
    """The setting of a row: prompt tokens, batch size, number of policies."""

    prompt: int
    batch: int
    policies: int

    def __str__(self) -> str:
        word = "policy" if self.policies == 1 else "policies"
        return f"prompt {self.prompt}, batch {self.batch}, {self.policies} {word}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    """One quantity on both sides: tokens per second, or MiB."""

    guarded: float
    bare: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one case. A row that was not measured has no numbers, and `note` says why."""

    name: str
    verdict: Verdict
    ratio: Interval | None = None
    added_ms: Interval | None = None
    bare_ms: float | None = None
    guarded_ms: float | None = None
    pairs: int = 0
    goal: Goal | None = None
    note: str = ""
    case: str = ""
    metric: str = ""
    point: Point | None = None
    guarded_percentiles: Percentiles | None = None
    """Percentiles of single calls, or of single tokens for the time per token, in ms."""
    bare_percentiles: Percentiles | None = None
    tokens_per_s: Two | None = None
    peak_mib: Two | None = None
    """Peak memory during one call, in MiB: allocated on the device, or resident on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run. `machine` is None if nothing was measured; `commit` ends in `+` if files had changed."""

    cases: tuple[Row, ...]
    machine: Machine | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    commit: str = ""
    time: str = ""
    clock: str = ""
    """`wall`, `cpu` (processor time of the process) or `events` (CUDA)."""
    method: str = METHOD
    notes: tuple[str, ...] = ()

    @property
    def not_measured(self) -> tuple[str, ...]:
        """The names of the rows without numbers."""
        return tuple(row.name for row in self.cases if row.ratio is None)


def measured(
    name: str,
    timings: Timings,
    goal: Goal | None = None,
    *,
    spread: Timings | None = None,
    inverted: bool = False,
    case: str = "",
    metric: str = "",
    point: Point | None = None,
    tokens_per_s: Two | None = None,
    peak_mib: Two | None = None,
    note: str = "",
) -> Row:
    """The row of a timed case. spread: the single events, if an entry of `timings` is a mean.

    inverted: the ratio is of throughputs, so bare / guarded time.
    """
    found = ratio(Timings(timings.bare, timings.guarded) if inverted else timings)
    more = added(timings)
    spread = spread or timings
    return Row(
        name=name,
        verdict=goal.verdict(found, more) if goal else "no goal",
        ratio=found,
        added_ms=more,
        bare_ms=float(np.median(timings.bare)),
        guarded_ms=float(np.median(timings.guarded)),
        pairs=len(timings.bare),
        goal=goal,
        note=note,
        case=case,
        metric=metric,
        point=point,
        guarded_percentiles=percentiles(spread.guarded),
        bare_percentiles=percentiles(spread.bare),
        tokens_per_s=tokens_per_s,
        peak_mib=peak_mib,
    )


def not_measured(name: str, goal: Goal | None, note: str) -> Row:
    """The row of a case that was not timed. It has no estimates."""
    return Row(name=name, verdict="not measured", goal=goal, note=note)


def missed(rows: Iterable[Row]) -> bool:
    """Whether a goal is missed or undecided."""
    return any(row.verdict in ("fail", "inconclusive") for row in rows)


def report(rows: Sequence[Row], device: str, clock: str, notes: Sequence[str] = ()) -> Report:
    """Rows together with machine, time and versions."""
    return Report(
        cases=tuple(rows),
        machine=machine(device),
        versions=versions(),
        commit=commit(),
        clock=clock,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=tuple(notes),
    )


def write(result: Report, path: Path) -> None:
    """Write JSON atomically: an interrupted run leaves the last complete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> Report:
    """A report from its JSON file."""
    from pydantic import TypeAdapter

    return TypeAdapter(Report).validate_python(json.loads(path.read_text(encoding="utf-8")))
