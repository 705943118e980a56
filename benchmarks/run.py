"""`python -m benchmarks.run`: the paired benchmark on this machine's processor, on one thread."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import subjects
from benchmarks.cases import engine_cases
from benchmarks.products import SHIPPED, product_cases, shipped_cases
from benchmarks.readme import refresh
from benchmarks.runner import pooled
from benchmarks.subjects import Subject
from guardrail.bench import results
from guardrail.bench.cases import Case
from guardrail.bench.clocks import Stopwatch, cpu_clock, wall_clock
from guardrail.bench.pairs import PAIRS
from guardrail.bench.results import Row
from guardrail.bench.tables import HEADINGS, cells
from guardrail.errors import GuardrailError

SUITES: dict[str, Callable[[], Subject]] = {
    "12 x 64": subjects.launch_bound,
    "12 x 768": subjects.compute_bound,
    "demo": subjects.demo,
}
MORE_PAIRS = {"12 x 64": 3 * PAIRS, "demo": 2 * PAIRS}
"""The shortest calls are the noisiest."""
Say: TypeAlias = Callable[[str], object]
CLOCKS = {"wall": wall_clock, "cpu": cpu_clock}


def main() -> int:
    """Exit code 0, or 1 if a goal is missed or undecided."""
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    console, found = Console(), list[Row]()
    clock = CLOCKS[arguments.clock]()
    try:
        with console.status("building models") as status:
            for row in measured(arguments.only or SUITES, arguments.pairs, clock, status.update):
                found.append(row)
                console.print(*cells(row), sep="  ", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("interrupted: this is what was measured")
        console.print(table(found))
        return 1
    save(found, arguments.out, arguments.clock)
    console.print(table(found))
    return int(results.missed(found))


def measured(suites: Iterable[str], pairs: int | None, clock: Stopwatch, say: Say) -> Iterator[Row]:
    """The rows of the models that were asked for."""
    for name in suites:
        wanted = pairs or MORE_PAIRS.get(name, PAIRS)
        yield from pooled(SUITES[name], engine_and_guard, wanted, clock, say)
        if name == "demo":
            yield from shipped(SUITES[name], wanted, clock, say)


def engine_and_guard(subject: Subject) -> Iterator[Case]:
    """The engine's cases, then those of the whole product."""
    yield from engine_cases(subject)
    yield from product_cases(subject)


def shipped(build: Callable[[], Subject], pairs: int, clock: Stopwatch, say: Say) -> Iterator[Row]:
    """The shipped policies; not measured if vectors or calibration belong to another model."""
    try:
        yield from pooled(build, shipped_cases, pairs, clock, say)
    except GuardrailError as error:
        note = f"{type(error).__name__}: vectors or calibration are missing or of another model"
        yield results.not_measured(f"demo: {SHIPPED}", None, note)


def save(found: list[Row], out: Path, clock: str) -> None:
    """Write the JSON file, and the table that the README shows."""
    results.write(results.report(found, "cpu", clock), out / "cpu.json")
    if out.resolve() == Path(__file__).parent / "results":
        refresh()


def table(found: list[Row]) -> Table:
    """For people in front of a terminal."""
    made = Table(*HEADINGS)
    for row in found:
        made.add_row(*cells(row))
    return made


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    made.add_argument("--device", choices=["cpu"], default="cpu", help="CUDA has `python -m benchmarks.gpu`")
    made.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    made.add_argument("--pairs", type=int, help=f"for every model (default: at least {PAIRS})")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--clock", choices=CLOCKS, default="wall")
    made.add_argument("--only", nargs="*", choices=SUITES, help="some of the models")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
