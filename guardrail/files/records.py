"""Ids, times and hashes, and the fields of decisions and messages that may be written as JSON.

A field that is not listed here never reaches an audit log or a ticket, even if it is added to the types.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeAlias, get_type_hints

from pydantic import TypeAdapter

from guardrail.types import Decision, Message, Score, Steering, ToolCall

Json: TypeAlias = dict[str, Any]

DECISION_FIELDS = (
    "status",
    "action",
    "would_action",
    "policy",
    "fired",
    "policy_sha256",
    "vectors_sha256",
    "calibration_sha256",
    "fail_open",
    "warnings",
    "error",
    "stage",
    "token",
    "otherwise",
)
SCORE_FIELDS = ("policy", "trait", "layer", "score", "threshold", "fired", "mode")
STEERING_FIELDS = ("policy", "trait", "operator", "layers", "limits", "floor")


def is_text(value: object) -> bool:
    """Whether it is a text that can be written down: half a surrogate pair is not valid Unicode."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def new_id() -> str:
    """An id that sorts by time: 12 hex digits of milliseconds, 16 random ones."""
    milliseconds = int(datetime.now(UTC).timestamp() * 1000)
    return f"{milliseconds:012x}{secrets.token_hex(8)}"


def utc_now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return utc_in(0)


def utc_in(seconds: float) -> str:
    """The time in so many seconds, as `utc_now`."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def prompt_sha256(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """A hash of all roles, texts and tool calls, and of the tools. Every split of a text has its own hash."""
    turns: list[object] = [_turn(message) for message in messages]
    if tools:
        turns.append({"tools": list(tools)})
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _turn(message: Message) -> list[object]:
    row = message.as_dict()
    # no third part for plain turns, whose hashes are in older records
    return [row.pop("role"), row.pop("content"), *([row] if row else [])]


def text_sha256(text: str) -> str:
    """A hash of a reply."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def pick(value: object, fields: Sequence[str]) -> Json:
    """The given attributes, ready for JSON: tuples become lists, non-finite numbers become null."""
    return {name: _plain(getattr(value, name)) for name in fields}


def keep(row: Mapping[str, Any], fields: Sequence[str]) -> Json:
    """The given keys that a row has. Lists become tuples."""
    found = {name: row[name] for name in fields if name in row}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def checked(kind: type, row: Mapping[str, Any], fields: Sequence[str]) -> Json:
    """As `keep`, with each value of the type that this dataclass has there. Raises ValueError for others."""
    return {name: _check(kind, name).validate_python(value) for name, value in keep(row, fields).items()}


@cache
def _check(kind: type, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(kind)[name])


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, tuple):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def decision_to_json(decision: Decision) -> Json:
    """A decision without the numbers of its steering."""
    row = pick(decision, DECISION_FIELDS)
    row["scores"] = [pick(score, SCORE_FIELDS) for score in decision.scores]
    row["steering"] = [pick(steering, STEERING_FIELDS) for steering in decision.steering]
    return row


def decision_from_json(row: Mapping[str, Any]) -> Decision:
    """A decision as it was written; its steering has lost its directions."""
    scores = tuple(_score(item) for item in row.get("scores", ()))
    steering = tuple(
        Steering(**checked(Steering, item, STEERING_FIELDS), directions=())
        for item in row.get("steering", ())
    )
    return Decision(**checked(Decision, row, DECISION_FIELDS), scores=scores, steering=steering)


def _score(row: Mapping[str, Any]) -> Score:
    unknown = {name: math.nan for name in ("score", "threshold") if row.get(name) is None}
    return Score(**checked(Score, {**row, **unknown}, SCORE_FIELDS))


def messages_to_json(messages: Sequence[Message]) -> list[Json]:
    """The shape of the OpenAI API."""
    return [message.as_dict() for message in messages]


def messages_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Messages as they were written."""
    return tuple(_message(row) for row in rows)


def _message(row: Mapping[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["id"], **checked(ToolCall, call["function"], ("name", "arguments")))
        for call in row.get("tool_calls", ())
    )
    return Message(**checked(Message, row, ("role", "content", "tool_call_id", "name")), tool_calls=calls)
