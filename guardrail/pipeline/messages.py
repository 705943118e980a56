"""From the messages and tools that a caller hands in to `Message`s. Knows no model.

Keys and parts that are understood are listed. Anything else that is not empty is content that policies cannot
read: the reason is handed on, and policies say what happens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Sized
from typing import Any, TypeAlias

from guardrail.errors import PromptError
from guardrail.types import Message, MessageLike, ToolCall

ROLES = ("system", "user", "assistant", "tool")
SYNONYMS = {"developer": "system"}
"""Roles of the OpenAI API that mean one of ours."""
KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
Tool: TypeAlias = Mapping[str, Any]


def message(item: MessageLike) -> tuple[Message, str | None]:
    """A message, and what in it cannot be read, if anything. Raises PromptError."""
    if isinstance(item, Message):
        item = item.as_dict()
    if not isinstance(item, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PromptError(f"a message is a mapping with `role` and `content`, not {type(item).__name__}")
    role = item.get("role")
    role = SYNONYMS.get(role, role) if isinstance(role, str) else role
    if role is None:
        raise PromptError("missing role")
    if role not in ROLES:
        raise PromptError(f"unknown role {role!r}; roles are {', '.join((*ROLES, *SYNONYMS))}")
    calls = _calls(item.get("tool_calls"))
    content = item.get("content")
    text, reason = _content("" if content is None and calls else content)
    if extra := _more(item, KEYS):
        reason = f"`{extra}` of a message cannot be read"
    found = Message(
        role,  # pyright: ignore[reportArgumentType]
        text,
        calls,
        _label(item, "tool_call_id"),
        _label(item, "name"),
    )
    _check_unicode(text if found == Message(found.role, text) else _json(found.as_dict()))
    return found, reason


def _more(item: Mapping[str, object], known: Sequence[str]) -> str | None:
    """The first key that is not known and not empty."""
    return next((_name(key) for key, value in item.items() if key not in known and not _empty(value)), None)


def _name(value: object) -> str:
    """A key or type as it can be shown in a reason, which goes into logs: names, but not whole texts."""
    text = str(value)
    return text if text.isidentifier() and len(text) <= 40 else "..."


def _empty(value: object) -> bool:
    return value is None or value is False or (isinstance(value, Sized) and len(value) == 0)


def _label(item: Mapping[str, object], key: str) -> str | None:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise PromptError(f"`{key}` of a message is text, not {type(value).__name__}")
    return value or None


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise PromptError("the text contains an unpaired surrogate, which is not valid Unicode") from None


def _content(content: object) -> tuple[str, str | None]:
    if isinstance(content, str):
        return content, None
    if content is None:
        return "", "a message without content cannot be read"
    if not isinstance(content, Sequence):
        return "", f"content of type {type(content).__name__} cannot be read"
    texts = [str(part["text"]) for part in content if _is_text(part)]
    other = [part for part in content if not _is_text(part)]
    reason = f"content parts of type {_kind(other[0])} cannot be read" if other else None
    return "\n".join(texts), reason


def _is_text(part: object) -> bool:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        return False
    return _more(part, ("type", "text")) is None


def _kind(part: object) -> str:
    if not isinstance(part, Mapping):
        return type(part).__name__
    more = _more(part, ("type", "text")) if part.get("type") == "text" else None
    return f"text with `{more}`" if more else _name(part.get("type", "unknown"))


def _calls(calls: object) -> tuple[ToolCall, ...]:
    if not calls:
        return ()
    if isinstance(calls, str) or not isinstance(calls, Sequence):
        raise PromptError(f"`tool_calls` is a list, not {type(calls).__name__}")
    return tuple(_call(call) for call in calls)


def _call(call: object) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(name, str):
        raise PromptError("a tool call is `{id, type: function, function: {name, arguments}}`")
    more = _more(call, ("id", "type", "function", "index")) or _more(function, ("name", "arguments"))
    if more:
        raise PromptError(f"`{more}` of a tool call is not understood")
    arguments = function.get("arguments", "{}")
    text = arguments if isinstance(arguments, str) else _json(arguments)
    return ToolCall(str(call.get("id") or ""), name, text)


def checked_tools(given: Sequence[Tool] | None) -> tuple[Tool, ...]:
    """Functions that the model may call, as in the OpenAI API. Raises PromptError."""
    found = tuple(given or ())
    for tool in found:
        function = tool.get("function") if isinstance(tool, Mapping) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise PromptError("a tool is `{type: function, function: {name, description, parameters}}`")
    _check_unicode(_json(found))
    return found


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptError(f"tools and their arguments have to be JSON: {error}") from None
