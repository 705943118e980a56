"""Multiple-choice items: MMLU's CSV files, and JSON Lines."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import ConfigError
from guardrail.evaluation.capability import LETTERS, read_lines
from guardrail.files.json_lines import refuse
from guardrail.files.json_text import content

COLUMNS = 6
"""Of MMLU's files: question, four options, the letter of the right one."""
SPLIT = re.compile(r"_(test|dev|val)$")


@dataclass(frozen=True, slots=True)
class Item:
    """A question, its options, the index of the right one, and the subject that it belongs to."""

    question: str
    options: tuple[str, ...]
    answer: int
    subject: str


def read_items(paths: Sequence[Path]) -> list[Item]:
    """The items of files and of folders of CSV files. Raises ConfigError with every bad line."""
    files = [file for path in paths for file in (sorted(path.glob("*.csv")) if path.is_dir() else [path])]
    if not files:
        raise ConfigError(f"{', '.join(map(str, paths))}: there is no CSV file")
    return [item for file in files for item in (_table(file) if file.suffix == ".csv" else _lines(file))]


def _lines(path: Path) -> list[Item]:
    return [Item(line.question, tuple(line.options), line.place or 0, path.stem) for line in read_lines(path)]


def _table(path: Path) -> list[Item]:
    """A file as MMLU has them: no header, and the subject in its name."""
    try:
        rows = csv.reader(io.StringIO(content(path).decode("utf-8-sig"), newline=""), strict=True)
        numbered = [(rows.line_num, row) for row in rows if row]
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}") from error
    numbered = numbered[_is_header(numbered) :]
    refuse([f"{path}:{number}: {told}" for number, row in numbered for told in _problems(row)])
    if not numbered:
        raise ConfigError(f"{path}: the file contains no question")
    subject = SPLIT.sub("", path.stem)
    return [Item(row[0], tuple(row[1:-1]), LETTERS.index(row[-1].strip()), subject) for _, row in numbered]


def _is_header(rows: Sequence[tuple[int, Sequence[str]]]) -> bool:
    return bool(rows) and [cell.strip().lower() for cell in (rows[0][1][0], rows[0][1][-1])] == [
        "question",
        "answer",
    ]


def _problems(row: Sequence[str]) -> Iterator[str]:
    if len(row) != COLUMNS:
        yield f"{len(row)} columns, not {COLUMNS}: question, four options, letter of the right one"
    elif row[-1].strip() not in LETTERS[: COLUMNS - 2] or not row[-1].strip():
        yield f"the last column must be the letter of an option, A to D, not `{row[-1]}`"
    elif not all(cell.strip() for cell in row):
        yield "the question or an option is empty"
