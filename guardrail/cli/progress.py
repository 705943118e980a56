"""What a verb is doing: bars on a terminal, elsewhere a line on standard error every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guardrail.cli.console import errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

EVERY_S = 5.0
"""Between lines, and before the first: what is quick says nothing."""
_OPEN: list[object] = []
"""What is going on, one within another. Only the innermost speaks."""


@contextmanager
def doing(text: str) -> Generator[Callable[[str], None]]:
    """Says what goes on while the block runs. Yields a say(text) for what goes on next."""
    if not errors().is_terminal:
        with _lines(text) as say:
            yield say
        return
    with errors().status(text) as status:
        yield status.update


@contextmanager
def counted(label: str, total: int, console: Console | None = None) -> Generator[Callable[[int], None]]:
    """Yields an advance(count). The bar is gone once the work is done."""
    from rich.progress import Progress

    shown = console or errors()
    if not shown.is_terminal:
        with _lines(f"{label}: 0 of {total}") as say:
            yield _counter(label, total, say)
        return
    with Progress(console=shown, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def staged() -> Generator[Callable[[str, int, int], None]]:
    """Yields a report(stage, done, total). One bar at a time; a finished stage leaves a line."""
    if not errors().is_terminal:
        with _lines("starting ...") as say:
            yield lambda stage, done, total: say(f"{stage}: {done} of {total}")
        return
    with _bars() as report:
        yield report


@contextmanager
def _bars() -> Generator[Callable[[str, int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    label = TextColumn("[progress.description]{task.description}")
    columns = (label, BarColumn(), MofNCompleteColumn(), _speed(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=errors(), redirect_stdout=False) as bar:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                # what an earlier run did does not count for this run's speed
                tasks[stage] = bar.add_task(stage, total=total, completed=done)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


def _counter(label: str, total: int, say: Callable[[str], None]) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        say(f"{label}: {done} of {total}")

    return advance


@contextmanager
def _lines(text: str) -> Generator[Callable[[str], None]]:
    """Prints the last text that was said, with the seconds since the beginning."""
    said, ended, start, place = [text], threading.Event(), time.monotonic(), object()

    def speak() -> None:
        while not ended.wait(EVERY_S):
            if _OPEN[-1] is place:
                print(f"{said[0]} ({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)

    _OPEN.append(place)
    speaker = threading.Thread(target=speak, name="guardrail-progress", daemon=True)
    speaker.start()
    try:
        yield lambda now: said.__setitem__(0, now)
    finally:
        ended.set()
        speaker.join()
        _OPEN.remove(place)


def _speed() -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        """Rows per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")

    return Speed()
