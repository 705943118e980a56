"""One row of training data as a sample: prompts with the replies that are trained on. Knows no model.

Shapes: `messages` (every turn of the assistant is a reply), `prompt` with `response`, `prompt` with
`completion`; prompt and completion may be texts or lists of messages. Other keys are passed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from guardrail.errors import PromptError
from guardrail.files.problems import closest
from guardrail.pipeline.messages import Tool, checked_tools, message
from guardrail.types import Message

Kind: TypeAlias = Literal[
    "broken line", "no prompt", "no reply", "empty", "mixed schema", "unreadable", "too long", "duplicate"
]
"""What can be wrong with a row."""
Shape: TypeAlias = tuple[str, ...]
SHAPES: tuple[Shape, ...] = (("messages",), ("prompt", "response"), ("prompt", "completion"))
SHOWN = 8
"""How many keys of a row are named."""
SOURCES = ("source", "dataset")
"""The keys that say where a row comes from, if the caller names none."""
KEYS = {key for shape in SHAPES for key in shape}
"""The keys that are read as prompts and replies."""


class BadRow(ValueError):
    """A row that cannot be screened: it is reported, counted and set aside."""

    def __init__(self, kind: Kind, reason: str) -> None:
        self.kind: Kind = kind
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A conversation up to where the reply begins, and the reply in the data."""

    prompt: tuple[Message, ...]
    reply: str

    @property
    def asked(self) -> str:
        """The question for a judge: the last user message."""
        return next((m.content for m in reversed(self.prompt) if m.role == "user"), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row. A row of several replies scores as its highest does. `source`: where it says it is from."""

    exchanges: tuple[Exchange, ...]
    tools: tuple[Tool, ...] = ()
    source: str = ""
    shape: Shape = field(default=SHAPES[0])

    @property
    def key(self) -> bytes:
        """Identifies what would be trained on, in 16 bytes: equal keys are duplicates."""
        turns = [[[m.as_dict() for m in one.prompt], one.reply] for one in self.exchanges]
        text = json.dumps([turns, list(self.tools)], sort_keys=True)
        return hashlib.sha256(text.encode()).digest()[:16]


def sample(value: object, source: str | None = None) -> Sample:
    """The sample in a decoded row. `source`: the key that says where it comes from. Raises BadRow."""
    if not isinstance(value, Mapping):
        raise BadRow("broken line", f"must be an object, not {_type(value)}")
    row = {str(key): one for key, one in value.items() if one is not None}
    shape = _shape(row)
    return Sample(
        exchanges=_dialogue(row["messages"]) if shape == SHAPES[0] else _pair(row, shape[1]),
        tools=_tools(row.get("tools") or None),
        source=_source(row, source),
        shape=shape,
    )


class Samples:
    """Reads the rows of one data set as samples: the first that can be read says of which shape all are."""

    def __init__(self, source: str | None = None) -> None:
        self._source = source
        self.shape: Shape | None = None

    def read(self, value: object) -> Sample:
        """The sample in a decoded row, or in what could not be decoded. Raises BadRow."""
        if isinstance(value, BadRow):
            raise value
        found = sample(value, self._source)
        self.shape = self.shape or found.shape
        if found.shape != self.shape:
            earlier = named(self.shape)
            raise BadRow("mixed schema", f"has {named(found.shape)}, where earlier rows have {earlier}")
        return found


def named(shape: Shape) -> str:
    """A shape as people write it: `prompt` and `response`."""
    return " and ".join(f"`{key}`" for key in shape)


def _shape(row: Mapping[str, Any]) -> Shape:
    found = [shape for shape in SHAPES if all(key in row for key in shape)]
    if len(found) > 1:
        raise BadRow("mixed schema", f"has {' beside '.join(map(named, found))}; one of them is trained on")
    if found:
        return found[0]
    if "prompt" in row:
        raise BadRow("no reply", f"no reply: `prompt` stands without `response` or `completion`{_meant(row)}")
    shapes = ", ".join(map(named, SHAPES))
    raise BadRow("no reply", f"no reply: none of {shapes} ({_keys(row)}){_meant(row)}")


def _keys(row: Mapping[str, Any]) -> str:
    return "its keys: " + ", ".join(f"`{key[:40]}`" for key in list(row)[:SHOWN]) if row else "it is empty"


def _meant(row: Mapping[str, Any]) -> str:
    """`; did you mean ...?` if a key looks like one that is missing."""
    other = [key for key in row if key not in (*KEYS, *SOURCES, "tools")][:SHOWN]
    found = next((one for key in other if (one := closest(key[:40], KEYS - set(row)))), None)
    return f"; did you mean `{found}`?" if found else ""


def _dialogue(
    turns: object, before: tuple[Message, ...] = (), name: str = "messages"
) -> tuple[Exchange, ...]:
    """An exchange for every turn of the assistant. `before` is the context, which is not trained on."""
    said = _messages(turns, name)
    whole = (*before, *said)
    places = [i for i, one in enumerate(whole) if i >= len(before) and one.role == "assistant"]
    if not places:
        raise BadRow("no reply", f"no reply: `{name}` has no turn of the assistant")
    for place in places:
        if not whole[place].content.strip() and not whole[place].tool_calls:
            raise BadRow("empty", f"turn {place - len(before) + 1} of `{name}`, a reply, is empty")
    # a turn that only calls tools has no text whose states could be averaged
    replies = [place for place in places if whole[place].content.strip()]
    if not replies:
        raise BadRow("no reply", f"no reply in words: the assistant in `{name}` only calls tools")
    return tuple(_exchange(whole[:place], whole[place].content, name) for place in replies)


def _pair(row: Mapping[str, Any], key: str) -> tuple[Exchange, ...]:
    prompt = _prompt(row["prompt"])
    reply = row[key]
    if not isinstance(reply, str):
        return _dialogue(reply, prompt, key)
    if not reply.strip():
        raise BadRow("empty", f"`{key}` is empty")
    return (_exchange(prompt, reply, "prompt"),)


def _prompt(value: object) -> tuple[Message, ...]:
    if not isinstance(value, str):
        return _messages(value, "prompt")
    if not value.strip():
        raise BadRow("empty", "`prompt` is empty")
    return _messages([{"role": "user", "content": value}], "prompt")


def _exchange(prompt: tuple[Message, ...], reply: str, name: str) -> Exchange:
    if not any(one.role != "system" and (one.content.strip() or one.tool_calls) for one in prompt):
        raise BadRow("no prompt", f"no prompt: nothing in `{name}` stands before the reply")
    return Exchange(prompt, reply)


def _messages(value: object, name: str) -> tuple[Message, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        text = "" if (name,) == SHAPES[0] else "a text or "
        raise BadRow("unreadable", f"`{name}` must be {text}a list of messages, not {_type(value)}")
    return tuple(_message(one, i, name) for i, one in enumerate(value, 1))


def _message(value: Any, place: int, name: str) -> Message:
    try:
        found, reason = message(value)
    except PromptError as error:
        raise BadRow("unreadable", f"turn {place} of `{name}`: {error}") from error
    if reason is not None:
        raise BadRow("unreadable", f"turn {place} of `{name}`: {reason}")
    return found


def _type(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _tools(value: Any) -> tuple[Tool, ...]:
    try:
        return checked_tools(json.loads(value) if isinstance(value, str) else value)
    except (ValueError, TypeError, PromptError) as error:
        raise BadRow("unreadable", f"`tools`: {error}") from error


def _source(row: Mapping[str, Any], key: str | None) -> str:
    keys = (key,) if key else SOURCES
    return next((str(row[one]) for one in keys if isinstance(row.get(one), str | int)), "")
