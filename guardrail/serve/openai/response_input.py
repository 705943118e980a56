"""The input of `/v1/responses` as messages: all of it is read, instructions and results of tools included."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from guardrail.errors import PromptError
from guardrail.serve.errors import ApiError
from guardrail.serve.turns import TEXTS, check_turn


@dataclass(frozen=True, slots=True)
class Input:
    """Messages as in chats, and what the caller calls each of them: `instructions`, `input[0]`."""

    turns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    places: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, given: str | Sequence[Mapping[str, Any]], instructions: str | None) -> Self:
        """Raises ApiError for items that this server cannot read."""
        found = cls()
        if instructions:
            found._add({"type": "message", "role": "system", "content": instructions}, "instructions")
        if isinstance(given, str):
            found._add({"type": "message", "role": "user", "content": given}, "input")
            return found
        for number, item in enumerate(given):
            found._add(item, f"input[{number}]")
        return found

    def _add(self, item: Mapping[str, Any], place: str) -> None:
        _add(self.turns, item, place)
        # a call belongs to the turn before it
        self.places.extend([place] * (len(self.turns) - len(self.places)))

    @contextmanager
    def named(self) -> Generator[None]:
        """What is wrong with a message is called what the caller calls it."""
        try:
            yield
        except PromptError as error:
            raise PromptError(str(error), error.param and self._place(error.param)) from None

    def _place(self, param: str) -> str:
        found = re.fullmatch(r"messages(?:\[(\d+)\])?(.*)", param)
        if found is None:
            return param
        number, rest = found.groups()
        return (self.places[int(number)] if number else "input") + rest


def _add(found: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "message":
        check_turn(item, where)
        found.append({"role": item.get("role"), "content": _content(item.get("content"))})
    elif kind == "function_call":
        _add_call(found, item, where)
    elif kind == "function_call_output":
        content = _content(_field(item, "output", where))
        found.append({"role": "tool", "tool_call_id": _text(item, "call_id", where), "content": content})
    else:
        text = f"Invalid value for '{where}.type': this server reads messages, calls and their outputs."
        raise ApiError(400, text, code="invalid_value", param=f"{where}.type")


def _add_call(found: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    """Calls, and what was said before them, are one turn of the assistant."""
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": ""})
    function = {name: _text(item, name, where) for name in ("name", "arguments")}
    call = {"id": _text(item, "call_id", where), "type": "function", "function": function}
    found[-1].setdefault("tool_calls", []).append(call)


def _content(content: object) -> object:
    """Text parts as chats have them; other parts stay as they are, for policies to refuse."""
    if not isinstance(content, Iterable) or isinstance(content, str | Mapping):
        return content
    return [_part(part) for part in content]


def _part(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    field = TEXTS.get(str(part.get("type")))
    return {"type": "text", "text": part[field]} if field in part else part


def _field(item: Mapping[str, Any], name: str, where: str) -> object:
    if name not in item:
        text = f"Missing required parameter: '{where}.{name}'."
        raise ApiError(400, text, code="missing_required_parameter", param=f"{where}.{name}")
    return item[name]


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = _field(item, name, where)
    if not isinstance(value, str):
        text = f"Invalid type for '{where}.{name}': expected a string."
        raise ApiError(400, text, code="invalid_type", param=f"{where}.{name}")
    return value
