"""The benign prompts of `guardrail calibrate`: JSON Lines, plain text with one prompt a line, or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.calibrate.options import SampleOptions
from guardrail.cli.prompts import STDIN, InputPrompt, lines, parsed, with_system
from guardrail.errors import ConfigError
from guardrail.types import Messages

if TYPE_CHECKING:
    from guardrail.calibrate.sample import Sample
    from guardrail.extract.subject import Subject

SHOWN_PROBLEMS = 20
COLUMN = "prompt"


def read_sample(options: SampleOptions, subject: Subject) -> tuple[Sample, int]:
    """The split prompts, and how many were left out. Raises ConfigError with the line of every bad one."""
    from guardrail.calibrate.sample import read, split

    assert options.benign is not None
    file = read_benign(options.benign)
    given = with_system((InputPrompt(name=n, content=c) for n, c in file.prompts), options.system)
    prompts = [(prompt.name, prompt.content) for prompt in given]
    found = read(prompts, lambda messages: subject.render(messages).ids, subject.longest)
    problems = [*file.problems, *found.problems]
    if problems and not options.skip_invalid:
        raise ConfigError("\n".join([*_some(problems), "--skip-invalid leaves such prompts out"]))
    if not found.prompts:
        raise ConfigError(f"{options.benign}: the file holds no prompts")
    return split(found.prompts, options.held_out, options.seed), len(problems)


def _some(problems: list[str]) -> list[str]:
    more = len(problems) - SHOWN_PROBLEMS
    return [*problems[:SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]


@dataclass(slots=True)
class BenignFile:
    """The prompts of a file, each with its place (file:line), and the problems with other lines."""

    prompts: list[tuple[str, Messages | str]] = field(default_factory=list[tuple[str, "Messages | str"]])
    problems: list[str] = field(default_factory=list[str])


def read_benign(path: Path) -> BenignFile:
    """`.txt` and `.csv` by their names, anything else as JSON Lines; `-` means standard input.

    Raises ConfigError if the file cannot be read at all.
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
