"""Files of benign prompts: JSON Lines, plain text with one prompt a line, or CSV with a column of prompts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.cli.prompts import STDIN, InputPrompt, lines, parsed
from guardrail.errors import ConfigError
from guardrail.types import Messages

COLUMN = "prompt"


@dataclass(slots=True)
class BenignFile:
    """The prompts of a file under the names that messages use, and what is wrong with other lines."""

    prompts: list[tuple[str, Messages | str]] = field(default_factory=list[tuple[str, "Messages | str"]])
    problems: list[str] = field(default_factory=list[str])


def read_benign(path: Path) -> BenignFile:
    """`.txt` and `.csv` by their names, everything else as JSON Lines; `-` is the standard input.

    Raises ConfigError where the file cannot be read at all.
    """
    found = BenignFile()
    name = "<stdin>" if path == STDIN else str(path)
    rows = {".txt": _text, ".csv": _csv}.get(path.suffix.lower(), _json_lines)
    for number, content in rows(path, name):
        where = f"{name}:{number}"
        if isinstance(content, Exception):
            found.problems.append(f"{where}: {content}")
        else:
            found.prompts.append((where, content))
    return found


Row = tuple[int, "Messages | str | Exception"]


def _json_lines(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            yield number, _attempt(f"{name}:{number}", line)


def _attempt(name: str, line: bytes) -> Messages | str | Exception:
    try:
        prompt: InputPrompt = parsed(name, line)
    except ValueError as error:
        return error
    return prompt.content


def _text(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(lines(path), 1):
        try:
            if line.strip():
                yield number, line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            yield number, ValueError(f"not UTF-8 (byte {error.start + 1})")


def _csv(path: Path, name: str) -> Iterator[Row]:
    try:
        text = b"\n".join(lines(path)).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if COLUMN not in (reader.fieldnames or ()):
            raise ConfigError(f"{name}: no column `{COLUMN}`; columns: {', '.join(reader.fieldnames or ())}")
        for row in reader:
            yield reader.line_num, row[COLUMN] or ""
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{name}: cannot be read as CSV: {error}") from error
