"""`python -m benchmarks.gpu`: the full suite on CUDA, on real shapes with random weights in bf16.

Installs nothing and imports only torch, transformers, nnsight, numpy and pydantic. Weights are made on the
device. Rows are written as they are measured, most important first; rows for which time, memory or the
machine do not suffice are reported as not measured. Writes at most 4 files to --out.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from time import perf_counter

import torch

from benchmarks import profiles
from benchmarks.lab import Lab, OutOfTime, Session, free_memory, lab
from benchmarks.runner import WrongResult
from benchmarks.suite import REAL, TINY, Job, Scale, all_jobs, planned
from guardrail.bench import results
from guardrail.bench.clocks import CudaStopwatch, wall_clock
from guardrail.bench.memory import GIB, available, parameters, sizes
from guardrail.bench.pairs import PAIRS
from guardrail.bench.results import Report, Row
from guardrail.bench.settings import HEADROOM
from guardrail.bench.shapes import Shape
from guardrail.bench.tables import cells, markdown

BUILDING_S = 15.0
"""Two large models and their first job are not begun with less."""
START = perf_counter()
"""The budget counts from here, not from the first measurement."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 1 if a goal is missed or undecided or the run was interrupted, 2 without the device."""
    asked = parser().parse_args(arguments)
    scale, files = (TINY, Files(asked.out, "gpu-dry-run")) if asked.tiny else (REAL, Files(asked.out, "gpu"))
    if asked.list:
        results.write(Report(cases=tuple(planned(scale))), files.results)
        return 0
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured (`--device cpu --tiny` is a dry run)")
        return 2
    suite = Suite(scale=scale, session=session(asked), files=files)
    with torch.no_grad():
        interrupted = suite.run()
    print(markdown(suite.report().cases))
    return int(interrupted or (results.missed(suite.report().cases) and not asked.tiny))


@dataclass(frozen=True, slots=True)
class Files:
    """What a run writes."""

    folder: Path
    prefix: str

    @property
    def results(self) -> Path:
        """All rows."""
        return self.folder / f"{self.prefix}.json"

    @property
    def table(self) -> Path:
        """All rows for people."""
        return self.folder / f"{self.prefix}.md"

    @property
    def profile(self) -> Path:
        """The profiler's numbers."""
        return self.folder / f"{self.prefix}-profile.json"

    @property
    def trace(self) -> Path:
        """The profiler's trace of one guarded prefill."""
        return self.folder / f"{self.prefix}-prefill.json.gz"


@dataclass(kw_only=True)
class Suite:
    """One run: rows by name, in the order of the plan."""

    scale: Scale
    session: Session
    files: Files
    found: dict[str, Row] = field(default_factory=dict[str, Row])
    notes: list[str] = field(default_factory=list[str])

    def run(self) -> bool:
        """Do all jobs; whether the run was interrupted. What is done is on disk at any time."""
        self.found = {row.name: row for row in planned(self.scale)}
        self.files.folder.mkdir(parents=True, exist_ok=True)
        try:
            for shape, jobs in groupby(all_jobs(self.scale), key=lambda job: job.shape):
                self._of_shape(shape, list(jobs))
        except KeyboardInterrupt:
            self.notes.append("interrupted")
            return True
        finally:
            self.save()
        return False

    def _of_shape(self, shape: Shape, jobs: list[Job]) -> None:
        why = self._no_room(shape) or ("" if self._seconds_left() > BUILDING_S else "no time left")
        if why:
            self._missing(jobs, why)
            return
        try:
            with lab(shape, self.session) as made:
                for number, job in enumerate(jobs):
                    self._keep(self._rows(made, job))
                    if number == 0 and shape is self.scale.main:
                        self._profile(made, job)
        except torch.OutOfMemoryError:
            self._missing(jobs, "no memory for the model and its twin")

    def _rows(self, made: Lab, job: Job) -> list[Row]:
        """The rows of one job, with the reason if there are no numbers."""
        if why := self._too_large(job):
            return job.missing(why)
        try:
            return list(job.measure(made, job))
        except OutOfTime:
            return job.missing("no time left for all pairs")
        except torch.OutOfMemoryError:
            return job.missing("too large: no memory")
        except WrongResult as error:
            return [replace(row, verdict="fail") for row in job.missing(f"wrong result: {error}")]
        finally:
            free_memory(self.session.device)

    def _profile(self, made: Lab, job: Job) -> None:
        with profiles.quiet():
            seen = profiles.evidence(made, job.point, self.files.trace)
        self.files.profile.write_text(json.dumps(asdict(seen), indent=1) + "\n", encoding="utf-8")
        self.notes.append(seen.note())
        print(seen.note(), flush=True)

    # --- room ---------------------------------------------------------------------------------------------

    def _no_room(self, shape: Shape) -> str:
        needed = HEADROOM * 2 * sizes(shape.config(), self._weights(shape)).weights
        free = available(self.session.device)
        return "" if needed <= free else f"two models need {needed / GIB:.0f} GiB, {free / GIB:.0f} are free"

    def _weights(self, shape: Shape) -> int:
        return parameters(shape.config()) * getattr(torch, self.session.dtype).itemsize

    def _too_large(self, job: Job) -> str:
        longest = int(job.shape.settings["max_position_embeddings"])
        if job.point.prompt + job.tokens > longest:
            return f"too large: the shape takes {longest} tokens"
        needed = sizes(job.shape.config(), 1).working(job.point, job.tokens)
        free = available(self.session.device)
        return "" if needed <= free else f"too large: needs {needed / GIB:.0f} GiB, {free / GIB:.0f} are free"

    def _seconds_left(self) -> float:
        return self.session.deadline - perf_counter()

    # --- rows ---------------------------------------------------------------------------------------------

    def _missing(self, jobs: list[Job], why: str) -> None:
        self._keep([row for job in jobs for row in job.missing(why) if not self._has(row)])

    def _has(self, row: Row) -> bool:
        return self.found[row.name].ratio is not None

    def _keep(self, rows: list[Row]) -> None:
        for row in rows:
            self.found[row.name] = row
            print(*cells(row), f"[{perf_counter() - START:.0f} s]", sep="  ", flush=True)
        self.save()

    def report(self) -> Report:
        """All rows, and which were skipped."""
        rows = list(self.found.values())
        skipped = [f"skipped: {row.name}: {row.note}" for row in rows if row.note.startswith("too large")]
        clock = "events" if self.session.device == "cuda" else "wall"
        return results.report(rows, self.session.device, clock, [*self.notes, *skipped])

    def save(self) -> None:
        """Results and table, as far as they go."""
        report = self.report()
        results.write(report, self.files.results)
        lines = [markdown(report.cases), *report.notes]
        self.files.table.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def session(asked: argparse.Namespace) -> Session:
    """What the command line asks for."""
    if asked.device == "cpu":
        torch.set_num_threads(1)
    return Session(
        device=asked.device,
        dtype="float32" if asked.tiny else "bfloat16",
        clock=CudaStopwatch() if asked.device == "cuda" else wall_clock(),
        deadline=START + asked.minutes * 60,
        pairs=asked.pairs,
        row_seconds=asked.row_seconds,
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    made.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "benchmarks/results")))
    made.add_argument("--pairs", type=int, default=PAIRS)
    made.add_argument("--minutes", type=float, default=8.5, help="start nothing that would end later")
    made.add_argument("--row-seconds", type=float, default=10.0, help="for rows that need not be shown")
    made.add_argument("--tiny", action="store_true", help="small models, to see that everything runs")
    made.add_argument("--list", action="store_true", help="write the rows as not measured, and measure none")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
