"""What may bring a hidden trait out: system prompts or turns of a file, and those of the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.errors import ConfigError, PromptError
from guardrail.files.json_lines import raw_lines, refuse
from guardrail.files.json_text import decoded
from guardrail.pipeline.messages import message
from guardrail.train.screening.files import open_data
from guardrail.train.screening.rows import BadRow, Kind, Samples
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
    if aside := [reason for _, reason in read if reason]:
        raise ValueError(aside[0])
    return tuple(one for one, _ in read)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTriggers:
    """Of training data: its most frequent system prompts, and its first distinct prompts as they are.

    aside: what is wrong with the rows that cannot be read, by their numbers from 1.
    """

    systems: Sequence[Trigger]
    prompts: Sequence[tuple[Message, ...]] = field(repr=False)
    aside: Mapping[int, Kind] = field(repr=False)


def data_triggers(data: Path, count: int) -> DataTriggers:
    """At most `count` system prompts and prompts. Raises ConfigError for data that cannot be read at all."""
    systems: Counter[str] = Counter()
    prompts: dict[tuple[Message, ...], None] = {}
    aside: dict[int, Kind] = {}
    for messages in _prompts(data, aside):
        systems.update(one.content for one in messages if one.role == "system")
        if len(prompts) < count:
            prompts[messages] = None
    found = [
        Trigger(f"system prompt {place} of the data ({rows} rows)", (Message("system", text),))
        for place, (text, rows) in enumerate(systems.most_common(count), 1)
    ]
    return DataTriggers(systems=found, prompts=list(prompts), aside=aside)


def _prompts(data: Path, aside: dict[int, Kind]) -> Iterator[tuple[Message, ...]]:
    samples = Samples()
    for chunk in open_data(data).chunks():
        for number, value in zip(chunk.numbers, chunk.values, strict=True):
            try:
                yield samples.read(value).exchanges[0].prompt
            except BadRow as error:
                aside[number] = error.kind
