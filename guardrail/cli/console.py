"""Output of the verbs: the two consoles, tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from guardrail.statistics.intervals import Estimate

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""
WIDTH = 140
"""Columns if the output is not a terminal, so that tables in files and pipes do not wrap."""
NARROW = 100
"""Columns of tables that would grow with the model."""
GAP = 2
"""Columns between those of a table."""
PROSE = 28
"""A longer cell is wrapped between its words."""


class Interrupted(SystemExit):
    """Ctrl-C, and what that means for the command. Click, which has words of its own, lets it through."""

    def __init__(self, told: str) -> None:
        self.told = told
        super().__init__(INTERRUPTED)


@cache
def console() -> Console:
    """Standard output; plain text if it is not a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


@cache
def errors() -> Console:
    """Standard error: what is shown while something loads or runs."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    print(f"warning: {text}", file=sys.stderr)


def note(text: str) -> None:
    """Print something worth knowing before or during work to standard error."""
    print(text, file=sys.stderr)


def print_json(value: object) -> None:
    """Print one value on one line. Half a surrogate pair, which is no text, becomes an escape of JSON."""
    text = json.dumps(value, default=_encode, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _encode(value: Any) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return sorted(value) if isinstance(value, frozenset | set) else str(value)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, lead: int = 1
) -> None:
    """Print a table for people. Columns of numbers are right-aligned, and no cell is cut.

    A table that is wider than the terminal comes in parts, which all begin with the first `lead` columns.
    """
    body = [tuple(row) for row in rows]
    _print_parts(columns, body, range(len(columns)), title, lead, console().width)


def print_wide(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, lead: int = 1
) -> None:
    """As `print_table`, in at most 100 characters a line. Columns without a value are left out."""
    body = [tuple(row) for row in rows]
    filled = [i for i in range(len(columns)) if i < lead or any(number(row[i]) for row in body)]
    _print_parts(columns, body, filled, title, lead, min(NARROW, console().width))


def _print_parts(
    columns: Sequence[str],
    body: Sequence[Sequence[object]],
    shown: Sequence[int],
    title: str | None,
    lead: int,
    most: int,
) -> None:
    for part in _parts(columns, body, shown, lead, most):
        _print_part([columns[i] for i in part], [[row[i] for i in part] for row in body], title)
        title = " "


def _print_part(columns: Sequence[str], body: Sequence[Sequence[object]], title: str | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[i], int | float) for row in body)
        # a word that is wider than its column goes on in the next line
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*(escape(number(cell)) for cell in row))
    console().print(table)


def _parts(
    columns: Sequence[str], body: Sequence[Sequence[object]], shown: Sequence[int], lead: int, most: int
) -> Iterator[list[int]]:
    widths = {i: max(map(_least, [columns[i], *(number(row[i]) for row in body)])) + GAP for i in shown}
    part = [*shown[:lead]]
    for i in shown[lead:]:
        if len(part) > lead and sum(widths[j] for j in (*part, i)) - GAP > most:
            yield part
            part = [*shown[:lead]]
        part.append(i)
    yield part


def _least(cell: str) -> int:
    """How many characters a cell needs in a line: prose may be wrapped, numbers with intervals may not."""
    return len(cell) if len(cell) <= PROSE else max(PROSE, *map(len, cell.split()), 0)


def number(value: object) -> str:
    """A cell's text: numbers with four digits, nothing for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def interval(value: Estimate | None, form: str = ".3f") -> str:
    """A cell's text: a number with its interval, nothing for None."""
    return "" if value is None else f"{value:{form}}"


def percent(value: Estimate | None, digits: int = 1) -> str:
    """A cell's text: a share with its interval, for a column in per cent."""
    return "" if value is None else interval(value.times(100), f".{digits}f")
