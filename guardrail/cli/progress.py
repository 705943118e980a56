"""Progress bars on a terminal. Nothing is shown elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guardrail.cli.console import errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn


@contextmanager
def counted(label: str, total: int, console: Console | None = None) -> Generator[Callable[[int], None]]:
    """Yields an advance(count). The bar is gone once the work is done."""
    from rich.progress import Progress

    shown = console or errors()
    off = not shown.is_terminal
    with Progress(console=shown, disable=off, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def staged() -> Generator[Callable[[str, int, int], None]]:
    """Yields a report(stage, done, total). One bar at a time; a finished stage leaves a line."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    shown = errors()
    label = TextColumn("[progress.description]{task.description}")
    columns = (label, BarColumn(), MofNCompleteColumn(), _speed(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=shown, disable=not shown.is_terminal, redirect_stdout=False) as bar:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                # what an earlier run did does not count for this run's speed
                tasks[stage] = bar.add_task(stage, total=total, completed=done)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


def _speed() -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        """Rows per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")

    return Speed()
