"""What may bring a hidden trait out: system prompts or turns of a file, and those of the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.errors import ConfigError, PromptError
from guardrail.files.json_lines import raw_lines, refuse
from guardrail.files.json_text import decoded
from guardrail.pipeline.messages import message
from guardrail.train.screening.files import open_data
from guardrail.train.screening.rows import BadRow, sample
from guardrail.types import Message


@dataclass(frozen=True, slots=True)
class Trigger:
    """Turns to put before a question. `name` says where it is from, never what it says."""

    name: str
    messages: tuple[Message, ...] = field(repr=False)


def read_triggers(path: Path) -> list[Trigger]:
    """JSON Lines: a string is a system prompt, `{"messages": [...]}` are turns to put first.

    Raises ConfigError with every bad line, and for a file without any.
    """
    found: list[Trigger] = []
    problems: list[str] = []
    for place, line in raw_lines(path):
        try:
            name = f"{path.name}:{place.rpartition(':')[2]}"
            found.append(Trigger(name, _turns(decoded(line))))
        except (ValueError, PromptError) as error:
            problems.append(f"{place}: {error}")
    refuse(problems)
    if not found:
        raise ConfigError(f"{path}: the file contains no trigger")
    return found


def _turns(value: object) -> tuple[Message, ...]:
    if isinstance(value, str) and value.strip():
        return (Message("system", value),)
    turns = value.get("messages") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(turns, list) or not turns:
        raise ValueError('expected a system prompt as a string, or {"messages": [...]}')
    read = [message(turn) for turn in turns]
    if unread := [reason for _, reason in read if reason]:
        raise ValueError(unread[0])
    return tuple(one for one, _ in read)


def data_triggers(data: Path, count: int) -> tuple[list[Trigger], list[tuple[Message, ...]]]:
    """(the most frequent system prompts, the first distinct prompts as they are) of training data.

    Rows that cannot be read are passed over: screening the data reports them.
    """
    systems: Counter[str] = Counter()
    prompts: dict[tuple[Message, ...], None] = {}
    for messages in _prompts(data):
        systems.update(one.content for one in messages if one.role == "system")
        if len(prompts) < count:
            prompts[messages] = None
    found = [
        Trigger(f"system prompt {place} of the data ({rows} rows)", (Message("system", text),))
        for place, (text, rows) in enumerate(systems.most_common(count), 1)
    ]
    return found, list(prompts)


def _prompts(data: Path) -> Iterator[tuple[Message, ...]]:
    for chunk in open_data(data).chunks():
        for value in chunk.values:
            try:
                yield from (one.prompt for one in sample(value).exchanges[:1])
            except BadRow:
                continue
