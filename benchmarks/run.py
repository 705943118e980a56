"""`python -m benchmarks.run`: the paired benchmark on this machine's processor, on one thread."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import results, subjects
from benchmarks.cases import engine_cases
from benchmarks.pairs import PAIRS, Clock, cpu_clock, wall_clock
from benchmarks.products import SHIPPED, product_cases, shipped_cases
from benchmarks.readme import refresh
from benchmarks.results import HEADINGS, Row
from benchmarks.runner import rows
from benchmarks.subjects import Subject
from guardrail.errors import GuardrailError

SUITES: dict[str, Callable[[], Subject]] = {
    "12 x 64": subjects.launch_bound,
    "12 x 768": subjects.compute_bound,
    "demo": subjects.demo,
}
MORE_PAIRS = {"12 x 64": 2 * PAIRS}
"""The shortest calls are the noisiest."""
CLOCKS: dict[str, Clock] = {"wall": wall_clock, "cpu": cpu_clock}


def main() -> int:
    """0, or 1 where a goal is missed or undecided."""
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    console, found = Console(), list[Row]()
    try:
        for row in measured(arguments.only or SUITES, arguments.pairs, CLOCKS[arguments.clock]):
            found.append(row)
            console.print(*results.cells(row), sep="  ", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("interrupted: this is what was measured")
        console.print(table(found))
        return 1
    save(found, arguments.out, arguments.clock)
    console.print(table(found))
    return int(any(row.verdict in ("fail", "inconclusive") for row in found))


def measured(suites: Iterable[str], pairs: int | None, clock: Clock) -> Iterator[Row]:
    """The rows of the models that were asked for."""
    for name in suites:
        yield from of_model(SUITES[name](), pairs or MORE_PAIRS.get(name, PAIRS), clock)


def of_model(subject: Subject, pairs: int, clock: Clock) -> Iterator[Row]:
    """The engine's cases, then those of the whole product."""
    yield from rows(subject, engine_cases(subject), pairs, clock)
    yield from rows(subject, product_cases(subject), pairs, clock)
    if subject.name == "demo":
        yield from shipped(subject, pairs, clock)


def shipped(subject: Subject, pairs: int, clock: Clock) -> Iterator[Row]:
    """The shipped policies; not measured where vectors and calibration are not those of the model."""
    try:
        yield from rows(subject, shipped_cases(subject), pairs, clock)
    except GuardrailError as error:
        note = f"{type(error).__name__}: vectors or calibration are missing or of another model"
        yield results.not_measured(f"{subject.name}: {SHIPPED}", None, note)


def save(found: list[Row], out: Path, clock: str) -> None:
    """Write the JSON file, and the table that the README shows."""
    results.write(results.report(found, "cpu", clock), out / "cpu.json")
    if out.resolve() == Path(__file__).parent / "results":
        refresh()


def table(found: list[Row]) -> Table:
    """For people in front of a terminal."""
    made = Table(*HEADINGS)
    for row in found:
        made.add_row(*results.cells(row))
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
