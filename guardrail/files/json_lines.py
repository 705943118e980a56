"""Strict reading of JSON Lines: every bad line is reported with its number before any line is used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from guardrail.errors import ConfigError
from guardrail.files.problems import suggest

M = TypeVar("M", bound=BaseModel)
SHOWN = 20
"""How many problems to list; the rest are only counted."""


def parse_lines(
    path: Path, model: type[M], check: Callable[[M], None] = lambda line: None
) -> list[tuple[str, M]]:
    """(place, line) of every line that is not blank. Raises ConfigError with every bad line.

    `check` raises ValueError for problems that the pydantic model cannot express.
    """
    rows: list[tuple[str, M]] = []
    problems: list[str] = []
    for place, text in raw_lines(path):
        try:
            line = parsed(text, model)
            check(line)
            rows.append((place, line))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    refuse(problems)
    return rows


def refuse(problems: Sequence[str]) -> None:
    """Raises ConfigError if there are any problems."""
    if problems:
        more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ConfigError("\n".join([*problems[:SHOWN], *more]))


def raw_lines(path: Path) -> list[tuple[str, bytes]]:
    """(place, bytes) of every line that is not blank."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def parsed(text: bytes, model: type[M]) -> M:
    """One line. Raises ValueError."""
    value = decoded(text)
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {'null' if value is None else type(value).__name__}")
    for key in value:
        if key not in model.model_fields:
            raise ValueError(f"unknown key `{key}`{suggest(key, model.model_fields)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ValueError(_described(error)) from error


def _described(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    plain = [
        str(part)
        for part in first["loc"]
        if not re.search(r"[\[(]|^(bool|float|int|constrained-\w+)$", str(part))
    ]
    given = json.dumps(first["input"], ensure_ascii=False)[:60]
    return f"`{'.'.join(plain)}`: {first['msg'].lower()}, not {given}"


def decoded(text: bytes) -> Any:
    """The parsed JSON. Raises ValueError for bytes that are not UTF-8, invalid JSON or invalid Unicode."""
    try:
        return proper(json.loads(text.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def proper(value: Any) -> Any:
    """The value itself. Raises ValueError if it contains an unpaired surrogate, which no tokenizer accepts.

    JSON escapes and odd bytes in command line arguments can produce one.
    """
    if re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
        raise ValueError("not valid Unicode: the text contains an unpaired surrogate")
    return value
