"""Tool calls in what a model wrote: found as its chat template writes them.

A tokenizer may bring its own way of reading replies (`response_template`). Other models are known by a mark
in their chat template. What does not parse, and what calls a tool that was not offered, stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

from guardrail.engines.marks import begun
from guardrail.types import ToolCall

ID_LENGTH = 9
"""The chat templates of Mistral take ids of this length only; others take any."""
_JSON = json.JSONDecoder()


@runtime_checkable
class TemplatedEngine(Protocol):
    """An engine that shows its chat template."""

    @property
    def chat_template(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Parsed:
    """A reply: what it says, and what it calls."""

    text: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing calls. `sign` in a chat template tells it.

    `marks` begin calls in a reply; `opening`, JSON and `closing` follow one another for each call. A group
    `name` in `opening` is the tool's name, and the JSON are its arguments. `alone`: calls only begin a reply.
    None of it searches: a reply may be long, and full of spaces.
    """

    sign: str
    marks: tuple[str, ...]
    opening: re.Pattern[str]
    closing: re.Pattern[str]
    alone: bool = False

    def free(self, text: str) -> int:
        """How many characters of a reply that is still coming are not part of a call, whatever follows."""
        if self.alone:
            start = text.lstrip()
            return 0 if any(m.startswith(start) or start.startswith(m) for m in self.marks) else len(text)
        first = self._first(text)
        end = len(text) - begun(text, self.marks) if first is None else first
        return len(text[:end].rstrip())

    def _first(self, text: str) -> int | None:
        """Where the first mark is."""
        if self.alone:
            start = len(text) - len(text.lstrip())
            return start if text.startswith(self.marks, start) else None
        return min((at for mark in self.marks if (at := text.find(mark)) >= 0), default=None)

    def parsed(self, text: str, names: Collection[str]) -> Parsed:
        """The reply without its calls, and the calls. Raises ValueError if there are none to be read."""
        first = self._first(text)
        calls, end = ([], 0) if first is None else self._read(text, first, names)
        if not calls:
            raise ValueError("no call")
        return Parsed((text[:first].rstrip() + text[end:]).rstrip(), tuple(calls))

    def _read(self, text: str, at: int, names: Collection[str]) -> tuple[list[ToolCall], int]:
        """The calls from here on, and where they end."""
        calls = list[ToolCall]()
        while (opening := self.opening.match(text, at)) is not None:
            value, end = _JSON.raw_decode(text, opening.end())
            name = opening.groupdict().get("name")
            calls += _calls(value if name is None else {"name": name, "arguments": value}, names)
            closing = self.closing.match(text, end)
            at = closing.end() if closing else end
        return calls, at


def _format(sign: str, marks: Sequence[str], opening: str, closing: str, alone: bool = False) -> Format:
    return Format(sign, tuple(marks), re.compile(rf"\s*{opening}\s*"), re.compile(rf"\s*{closing}"), alone)


_DEEPSEEK = "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"
FORMATS = (
    # Hermes, Qwen 2.5 and 3, and many others
    _format("<tool_call>", ["<tool_call>"], "<tool_call>", "(?:</tool_call>)?"),
    # Mistral: a list, or since Tekken 7 one call after another
    _format("[TOOL_CALLS]", ["[TOOL_CALLS]"], r"\[TOOL_CALLS\](?:\s*(?P<name>[\w.-]+)\[ARGS\])?", ""),
    _format(
        "<｜tool▁call▁begin｜>",
        _DEEPSEEK,
        rf"(?:{_DEEPSEEK[0]})?\s*{_DEEPSEEK[1]}(?:function<｜tool▁sep｜>)?(?P<name>[\w.-]+)"
        r"(?:<｜tool▁sep｜>)?\s*(?:```json)?",
        r"(?:```)?\s*<｜tool▁call▁end｜>\s*(?:<｜tool▁calls▁end｜>)?",
    ),
    # Command R
    _format("Action:", ["Action:"], "Action:\\s*```json", "(?:```)?"),
    # Phi 4
    _format("<|tool_call|>", ["<|tool_call|>"], r"<\|tool_call\|>", r"(?:<\|/tool_call\|>)?"),
    # Llama 3: nothing but the call
    _format('"parameters": ', ["{", "<|python_tag|>"], r"(?:<\|python_tag\|>|;)?(?=\s*\{)", "", alone=True),
)


class ToolReader:
    """Reads replies to requests with tools. `prompt`: the text before the reply.

    `own`: the tokenizer, if it has a `response_template`; otherwise `format`.
    """

    def __init__(
        self, tools: Sequence[Mapping[str, Any]], format: Format | None, own: Any, prompt: Callable[[], str]
    ) -> None:
        self._tools, self._format, self._own, self._prompt = tools, format, own, prompt
        self._names = {str(tool["function"]["name"]) for tool in tools}

    @property
    def reads(self) -> bool:
        """Whether calls can be read at all."""
        return self._own is not None or self._format is not None

    def parsed(self, text: str) -> Parsed:
        """The reply without its calls, and the calls; all of it as text if nothing can be read."""
        try:
            if self._own is not None:
                return self._by_tokenizer(text)
            return self._format.parsed(text, self._names) if self._format else Parsed(text)
        except (ValueError, KeyError, TypeError, RecursionError):
            return Parsed(text)

    def free(self, text: str) -> int:
        """How many characters of a reply that is still coming can be handed out."""
        if self._own is not None:
            return 0
        return self._format.free(text) if self._format else len(text)

    def _by_tokenizer(self, text: str) -> Parsed:
        found = self._own.parse_response(text, prefix=self._prompt(), tools=list(self._tools))
        calls = [_call(one["function"], self._names) for one in found.get("tool_calls") or ()]
        # what the template calls something else, such as thoughts, is not lost with it
        return Parsed(str(found.get("content") or ""), tuple(calls)) if calls else Parsed(text)


def format_of(engine: object) -> Format | None:
    """How the model of an engine writes calls; None if that is not known."""
    template = engine.chat_template if isinstance(engine, TemplatedEngine) else ""
    return next((one for one in FORMATS if one.sign in template), None)


def _calls(value: object, names: Collection[str]) -> list[ToolCall]:
    """The calls in a JSON value. Raises ValueError for anything else."""
    calls = [_call(one, names) for one in (value if isinstance(value, list) else [value])]
    if not calls:
        raise ValueError("no call")
    return calls


def _call(value: object, names: Collection[str]) -> ToolCall:
    if not isinstance(value, Mapping):
        raise ValueError("a call is an object")
    name = value.get("name", value.get("tool_name"))
    arguments = value.get("arguments", value.get("parameters"))
    arguments = _JSON.decode(arguments) if isinstance(arguments, str) else arguments
    if name not in names or not isinstance(arguments, Mapping):
        raise ValueError("a call has the name of a tool and an object of arguments")
    return ToolCall(uuid4().hex[:ID_LENGTH], str(name), json.dumps(arguments, ensure_ascii=False))
