"""The input of `/v1/responses` as messages: all of it is read, instructions and results of tools included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guardrail.serve.errors import ApiError
from guardrail.serve.turns import TEXTS, check_turn


def messages(given: str | Sequence[Mapping[str, Any]], instructions: str | None) -> list[dict[str, Any]]:
    """Messages as in chats. Raises ApiError for items that this server cannot read."""
    found: list[dict[str, Any]] = []
    if instructions:
        found.append({"role": "system", "content": instructions})
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for number, item in enumerate(items):
        _add(found, item, f"input[{number}]")
    return found


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
