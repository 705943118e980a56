"""Prompts for a verb: from arguments, or from JSON Lines with every bad line reported at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from guardrail.cli.options import PromptOptions
from guardrail.errors import ConfigError
from guardrail.files.json_lines import refuse
from guardrail.files.json_text import content, decoded, proper
from guardrail.files.problems import suggest
from guardrail.types import Message, MessageLike, Messages

STDIN = Path("-")
KEYS = ("messages", "prompt", "text", "tags", "conversation")
LABELS = (
    *("labels", "source", "category", "pair", "group", "split"),
    *("style", "language", "condition", "expression", "hard_benign"),
)
"""What a row for `vectors fit` or `evaluate` says beside its prompt. It is passed over."""
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
        """The last message, by which people recognise the prompt."""
        if isinstance(self.content, str):
            return self.content
        return _text(self.content[-1]) if self.content else ""


def chosen(options: PromptOptions) -> list[InputPrompt]:
    """Arguments first, then the file. Raises ConfigError if there are no prompts."""
    prompts = from_arguments(options.prompts or [])
    prompts += from_json_lines(options.file) if options.file else []
    if not prompts:
        raise ConfigError("no prompts: give them as arguments, or --input FILE.jsonl (- for standard input)")
    return with_system(prompts, options.system)


def from_arguments(texts: Sequence[str]) -> list[InputPrompt]:
    """Each argument is one user message. Raises ConfigError for bytes that are not Unicode."""
    return [InputPrompt(name=f"prompt {i}", content=argument(text)) for i, text in enumerate(texts, 1)]


def argument(text: str) -> str:
    """Text from the command line. Raises ConfigError for bytes that are not Unicode."""
    try:
        return proper(text)
    except ValueError as error:
        raise ConfigError(f"an argument is {error}") from error


def with_system(prompts: Iterable[InputPrompt], system: str | None) -> list[InputPrompt]:
    """Each prompt with the message of `--system`, if there is one, in front.

    Raises ConfigError with the name of every prompt that has a system message already.
    """
    found = list(prompts)
    if system is None:
        return found
    if taken := [prompt.name for prompt in found if has_system(prompt.content)]:
        raise ConfigError("\n".join(f"{name}: has a system message; leave out --system" for name in taken))
    first = Message("system", argument(system))
    return [replace(prompt, content=_behind(first, prompt.content)) for prompt in found]


def has_system(content: Content) -> bool:
    """Whether one of the messages is a system message."""
    return not isinstance(content, str) and any(_role(message) == "system" for message in content)


def _role(message: MessageLike) -> object:
    return message.role if isinstance(message, Message) else message.get("role")


def _behind(first: Message, content: Content) -> Content:
    if isinstance(content, str):
        return (first, Message("user", content))
    # an empty list stays one, and is refused as such
    return (first, *content) if content else content


def from_json_lines(path: Path) -> list[InputPrompt]:
    """Each line is a string, or `{"messages": [...]}`, with `tags` and `conversation` if wanted.

    A row for `vectors fit` is read without its labels. `-` means standard input. Raises ConfigError with
    every bad line.
    """
    prompts: list[InputPrompt] = []
    problems: list[str] = []
    for number, line in enumerate(lines(path), 1):
        name = f"{'<stdin>' if path == STDIN else path}:{number}"
        try:
            prompts += [parsed(name, line)] if line.strip() else []
        except ValueError as error:
            problems.append(f"{name}: {error}")
    refuse(problems)
    return prompts


def conversations(path: Path) -> list[tuple[Message, ...]]:
    """The prompts of a file as messages. Raises ConfigError with every prompt that cannot be read."""
    from guardrail.pipeline.request import request

    read = [(prompt.name, request("check", prompt.content)) for prompt in from_json_lines(path)]
    refuse([f"{name}: {one.unreadable}" for name, one in read if one.unreadable])
    return [one.messages for _, one in read]


def lines(path: Path) -> list[bytes]:
    """A file's lines without their ends. Raises ConfigError if it cannot be read."""
    try:
        return (sys.stdin.buffer.read() if path == STDIN else content(path)).split(b"\n")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def parsed(name: str, line: bytes) -> InputPrompt:
    """One line of JSON as a prompt. Raises ValueError with the reason if it is not one."""
    value = decoded(line)
    if isinstance(value, str):
        return InputPrompt(name=name, content=value)
    if not isinstance(value, dict):
        raise ValueError(f'expected a string or {{"messages": [...]}}, not {_kind(value)}')
    return _conversation(name, value)


def _conversation(name: str, row: Mapping[str, Any]) -> InputPrompt:
    for key in row:
        if key not in (*KEYS, *LABELS):
            raise ValueError(f"unknown key `{key}`{suggest(key, (*KEYS, *LABELS))}")
    tags, conversation = row.get("tags", []), row.get("conversation")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("`tags` must be a list of strings")
    if not isinstance(conversation, str | None):
        raise ValueError("`conversation` must be a string")
    return InputPrompt(name=name, content=_said(row), tags=frozenset(tags), conversation=conversation)


def _said(row: Mapping[str, Any]) -> Content:
    given = [key for key in ("messages", "prompt", "text") if key in row]
    if len(given) != 1:
        raise ValueError("give one of `messages`, `prompt` and `text`")
    content = row[given[0]]
    if given[0] != "messages":
        if not isinstance(content, str):
            raise ValueError(f"`{given[0]}` must be a string")
        return content
    if not isinstance(content, list) or not all(isinstance(m, dict) for m in content):
        raise ValueError("`messages` must be a list of objects with `role` and `content`")
    return content


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _text(message: MessageLike) -> str:
    content = message.content if isinstance(message, Message) else message.get("content")
    return content if isinstance(content, str) else f"({type(content).__name__})"
