"""Prompts for a verb: from arguments, or from JSON Lines with every bad line reported at once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from guardrail.errors import ConfigError
from guardrail.files.json_lines import decoded, proper
from guardrail.files.problems import suggest
from guardrail.types import Message, MessageLike, Messages

STDIN = Path("-")
KEYS = ("messages", "tags", "conversation")
Content: TypeAlias = "Messages | str"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPrompt:
    """One prompt with what its line says about it. `name` is how messages refer to it."""

    name: str
    content: Content
    tags: frozenset[str] = frozenset()
    conversation: str | None = None

    @property
    def text(self) -> str:
        """What people recognise it by: the last message."""
        if isinstance(self.content, str):
            return self.content
        return _text(self.content[-1]) if self.content else ""


def from_arguments(texts: Sequence[str]) -> list[InputPrompt]:
    """Each argument is one user message. Raises ConfigError where the terminal's bytes are no text."""
    try:
        return [InputPrompt(name=f"prompt {i}", content=proper(text)) for i, text in enumerate(texts, 1)]
    except ValueError as error:
        raise ConfigError(f"an argument is {error}") from error


def from_json_lines(path: Path) -> list[InputPrompt]:
    """Each line is a string, or `{"messages": [...]}`, with `tags` and `conversation` if wanted.

    `-` is the standard input. Raises ConfigError with every bad line.
    """
    prompts: list[InputPrompt] = []
    problems: list[str] = []
    for number, line in enumerate(lines(path), 1):
        name = f"{'<stdin>' if path == STDIN else path}:{number}"
        try:
            prompts += [parsed(name, line)] if line.strip() else []
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return prompts


def lines(path: Path) -> list[bytes]:
    """A file's lines without their ends. Raises ConfigError where it cannot be read."""
    try:
        return (sys.stdin.buffer.read() if path == STDIN else path.read_bytes()).split(b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def parsed(name: str, line: bytes) -> InputPrompt:
    """One line of JSON as a prompt. Raises ValueError that says what is wrong with it."""
    value = decoded(line)
    if isinstance(value, str):
        return InputPrompt(name=name, content=value)
    if not isinstance(value, dict):
        raise ValueError(f'neither a string nor {{"messages": [...]}} but {_kind(value)}')
    return _conversation(name, value)


def _conversation(name: str, row: Mapping[str, Any]) -> InputPrompt:
    for key in row:
        if key not in KEYS:
            raise ValueError(f"unknown key `{key}`{suggest(key, KEYS)}")
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError("`messages` has to be a list of objects with `role` and `content`")
    tags, conversation = row.get("tags", []), row.get("conversation")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("`tags` has to be a list of strings")
    if not isinstance(conversation, str | None):
        raise ValueError("`conversation` has to be a string")
    return InputPrompt(name=name, content=messages, tags=frozenset(tags), conversation=conversation)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _text(message: MessageLike) -> str:
    content = message.content if isinstance(message, Message) else message.get("content")
    return content if isinstance(content, str) else f"({type(content).__name__})"


def chosen(texts: Sequence[str], path: Path | None) -> list[InputPrompt]:
    """Arguments first, then the file. Raises ConfigError where there is nothing."""
    prompts = [*from_arguments(texts), *(from_json_lines(path) if path else [])]
    if not prompts:
        raise ConfigError(
            "no prompts: give them as arguments, or --input FILE.jsonl (- is the standard input)"
        )
    return prompts
