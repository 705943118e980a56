"""Benign prompts in a file, to compare a prompt with: those that `guardrail calibrate --benign` was given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from guardrail.errors import ConfigError, PromptError
from guardrail.files.json_lines import raw_lines, refuse
from guardrail.files.json_text import decoded
from guardrail.pipeline.request import request
from guardrail.types import Message

Turns = tuple[Message, ...]
KEYS = ("messages", "prompt", "text")
MOST = 64
"""The first look waits while each is read."""


def prompts_in(path: Path) -> Sequence[Turns]:
    """At most `MOST` prompts, spread evenly over a file of JSON Lines. A file that changes is read again.

    A line is a string or an object with `messages`, `prompt` or `text`; in `.txt` it is the prompt itself.
    Raises ConfigError with the line of every bad prompt.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, *version: int) -> Sequence[Turns]:
    rows = raw_lines(path)
    found, problems = list[Turns](), list[str]()
    for place, line in rows[:: max(1, -(-len(rows) // MOST))]:
        try:
            found.append(_turns(line, plain=path.suffix.lower() == ".txt"))
        except (ValueError, PromptError) as error:
            problems.append(f"{place}: {error}")
    refuse(problems)
    if not found:
        raise ConfigError(f"{path}: the file holds no prompts")
    return tuple(found)


def _turns(line: bytes, *, plain: bool) -> Turns:
    value = line.decode().strip() if plain else decoded(line)
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), None)
    if not isinstance(value, str | list):
        raise ValueError('expected a string or {"messages": [...]}')
    asked = request("check", value)
    if asked.unreadable:
        raise ValueError(asked.unreadable)
    return asked.messages
