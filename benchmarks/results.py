"""What a run found out, as data: rows, the machine they come from, JSON and tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks.pairs import Goal, Interval, Timings, Verdict, added, ratio

HEADINGS = ("case", "guarded / bare", "added ms", "bare ms", "pairs", "goal", "verdict")
PACKAGES = {"guardrail": "persona-guardrail"} | {n: n for n in ("torch", "transformers", "nnsight", "numpy")}
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case. Without a measurement there are no numbers, and `note` says why."""

    name: str
    verdict: Verdict
    ratio: Interval | None = None
    added_ms: Interval | None = None
    bare_ms: float | None = None
    guarded_ms: float | None = None
    pairs: int = 0
    goal: Goal | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the numbers depend on."""

    system: str
    processor: str
    cores: int
    threads: int
    device: str
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run; no machine where nothing was measured. `commit` ends in `+` where files had changed."""

    cases: tuple[Row, ...]
    machine: Machine | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    commit: str = ""
    time: str = ""
    clock: str = ""
    """`wall`, `cpu` (processor time of the process) or `events` (CUDA)."""
    method: str = "medians over alternating pairs with the bare copy; intervals are 95 % bootstrap intervals"

    @property
    def not_measured(self) -> tuple[str, ...]:
        """The names of the rows without numbers."""
        return tuple(row.name for row in self.cases if row.ratio is None)


def measured(name: str, timings: Timings, goal: Goal | None) -> Row:
    """The row of a case that was timed."""
    found = ratio(timings)
    return Row(
        name=name,
        verdict=goal.verdict(found) if goal else "no goal",
        ratio=found,
        added_ms=added(timings),
        bare_ms=float(np.median(timings.bare)),
        guarded_ms=float(np.median(timings.guarded)),
        pairs=len(timings.bare),
        goal=goal,
    )


def not_measured(name: str, goal: Goal | None, note: str) -> Row:
    """The row of a case that was not timed: nothing is estimated."""
    return Row(name=name, verdict="not measured", goal=goal, note=note)


def report(rows: Sequence[Row], device: str, clock: str) -> Report:
    """Rows with where, when and with what they were measured."""
    return Report(
        cases=tuple(rows),
        machine=machine(device),
        versions=versions(),
        commit=commit(),
        clock=clock,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write(result: Report, path: Path) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


def markdown(rows: Sequence[Row]) -> str:
    """A table for a README."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(row: Row) -> tuple[str, ...]:
    """One line of a table."""
    goal = _goal(row.goal)
    if row.ratio is None or row.added_ms is None or row.bare_ms is None:
        return (row.name, "not measured", "", "", "", goal, row.note or "not measured")
    return (
        row.name,
        _interval(row.ratio, 3),
        _interval(row.added_ms, 2),
        f"{row.bare_ms:.2f}",
        str(row.pairs),
        goal,
        row.verdict,
    )


def _interval(values: Interval, digits: int) -> str:
    return f"{values.median:.{digits}f} ({values.low:.{digits}f} to {values.high:.{digits}f})"


def _goal(goal: Goal | None) -> str:
    if goal is None:
        return ""
    return f"<= {goal.value}" if goal.kind == "at most" else f"{goal.value:.2f} within"


def machine(device: str) -> Machine:
    """This machine."""
    import torch

    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 0,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        load=os.getloadavg()[0],
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    return {"python": platform.python_version()} | {name: _version(p) for name, p in PACKAGES.items()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source tree"


def commit() -> str:
    """The commit that was measured; `unknown` outside of a repository."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "guardrail", "benchmarks/*.py")
    return head + ("+" if changed else "") if head else "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
