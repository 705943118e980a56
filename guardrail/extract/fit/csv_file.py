"""Labelled prompts in the columns of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.errors import ConfigError
from guardrail.files.json_text import content
from guardrail.files.problems import suggest

LABELS = {"1": 1, "true": 1, "yes": 1, "1.0": 1, "0": 0, "false": 0, "no": 0, "0.0": 0, "": None}
Row = Mapping[str | None, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns hold what. `labels` maps traits to columns."""

    prompt: str = "prompt"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    source: str | None = None
    category: str | None = None
    group: str | None = None
    split: str | None = None

    @property
    def others(self) -> dict[str, str]:
        """Columns by the key of a line of JSON that says the same."""
        found = {key: getattr(self, key) for key in ("source", "category", "group", "split")}
        return {key: column for key, column in found.items() if column}

    def names(self) -> list[str]:
        """All columns that are read."""
        return [self.prompt, *self.labels.values(), *self.others.values()]


def csv_rows(path: Path, columns: Columns) -> list[tuple[str, Row]]:
    """(place, cells) of every row. Raises ConfigError for a file that is not CSV, or lacks a column."""
    try:
        reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
        _check(path, columns, list(reader.fieldnames or ()))
        return [(f"{path}:{reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error


def _text(path: Path) -> str:
    try:
        return content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check(path: Path, columns: Columns, there: Sequence[str]) -> None:
    if not columns.labels:
        raise ConfigError(
            f"{path}: name the column of each label with --label-column; columns: {', '.join(there)}"
        )
    for name in columns.names():
        if name not in there:
            raise ConfigError(
                f"{path}: no column `{name}`{suggest(name, there)}; columns: {', '.join(there)}"
            )


def values_of(row: Row, columns: Columns) -> dict[str, object]:
    """A row in the shape of a line of JSON. Raises ValueError for a damaged one."""
    if None in row or None in row.values():
        raise ValueError("the row has another number of cells than the header")
    cells = {name: row[name] or "" for name in columns.names()}
    return {
        "prompt": cells[columns.prompt],
        "labels": {trait: _label(column, cells[column]) for trait, column in columns.labels.items()},
        **{key: cells[column] for key, column in columns.others.items() if cells[column]},
    }


def _label(column: str, cell: str) -> int | None:
    try:
        return LABELS[cell.strip().lower()]
    except KeyError:
        raise ValueError(f"`{column}` is 1 or 0, or empty if nobody judged it, not {cell!r}") from None
