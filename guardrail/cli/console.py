"""What the verbs share: options with the same name and meaning everywhere, tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 140
"""Columns where the output is not a terminal, so that tables in files and pipes do not wrap."""

JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ModelName: TypeAlias = Annotated[
    str, typer.Option("--model", help="A hub id, a folder, or `demo`, the built-in model.")
]
PoliciesFile: TypeAlias = Annotated[Path | None, typer.Option("--policies", help="A policy file (YAML).")]


@cache
def console() -> Console:
    """The terminal, or plain text where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


@cache
def errors() -> Console:
    """The terminal beside the output: what is said while something loads or runs."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """One value on one line."""
    print(json.dumps(value, default=_encode, ensure_ascii=False))


def _encode(value: Any) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return sorted(value) if isinstance(value, frozenset | set) else str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table for people; numbers are aligned to the right."""
    from rich.markup import escape
    from rich.table import Table

    body = [tuple(row) for row in rows]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[i], int | float) for row in body)
        table.add_column(name, justify="right" if numeric else "left")
    for row in body:
        table.add_row(*(escape(number(cell)) for cell in row))
    console().print(table)


def number(value: object) -> str:
    """Numbers with four digits, nothing for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
