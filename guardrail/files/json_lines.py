"""Strict reading of JSON Lines: every bad line is reported with its number before any line is used."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from guardrail.errors import ConfigError
from guardrail.files.json_text import content, decoded, described
from guardrail.files.problems import suggest

M = TypeVar("M", bound=BaseModel)
SHOWN = 20
"""How many problems to list; the rest are only counted."""
PLACED = re.compile(r"(?P<place>.+?:\d+): (?P<reason>.+)", re.DOTALL)


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


def refuse(problems: Sequence[str], hint: str = "") -> None:
    """Raises ConfigError if there are any problems, with what can be done about them in the last line."""
    if problems:
        found = together(problems)
        more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise ConfigError("\n".join([*found[:SHOWN], *more, *([hint] if hint else [])]))


def together(problems: Sequence[str]) -> list[str]:
    """Problems of several lines with one reason as one problem: the first, and how many more there are."""
    lines: dict[str, list[str]] = {}
    for problem in problems:
        placed = PLACED.fullmatch(problem)
        lines.setdefault(placed["reason"] if placed else problem, []).append(problem)
    return [_counted(first, len(rest)) for first, *rest in lines.values()]


def _counted(problem: str, more: int) -> str:
    return f"{problem} (and {more} more line{'s' * (more > 1)})" if more else problem


def raw_lines(path: Path) -> list[tuple[str, bytes]]:
    """(place, bytes) of every line that is not blank."""
    try:
        lines = content(path).split(b"\n")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def parsed(text: bytes, model: type[M]) -> M:
    """One line. Raises ValueError."""
    value = decoded(text)
    if not isinstance(value, dict):
        found, keys = "null" if value is None else type(value).__name__, ", ".join(model.model_fields)
        raise ValueError(f"must be an object, not {found}; its keys: {keys}")
    for key in value:
        if key not in model.model_fields:
            raise ValueError(f"unknown key `{key}`{suggest(key, model.model_fields)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ValueError(described(error.errors(include_url=False)[0])) from error
