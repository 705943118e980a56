"""Checks what plugins return while a request runs. Errors name types, and never quote what was returned."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

from guardrail.errors import EvaluationError
from guardrail.files.problems import suggest
from guardrail.files.records import is_text
from guardrail.plugins.protocols import Answer, Otherwise, Response, Retry
from guardrail.types import ALLOW, FailureAction, Message, Role, Ticket


def checked_score(value: object) -> float:
    """A scorer's score. Raises EvaluationError for anything but a number; policies judge NaN."""
    if isinstance(value, str | bytes | bool):
        raise _wrong("a score", value)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise _wrong("a score", value) from None


def checked_review(plugin: str, value: object, actions: Collection[str]) -> str | None:
    """The action that a review asks for. Raises EvaluationError for one that it cannot ask for."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(f"plugin `{plugin}` asked for an action whose name", value)
    if value == "steer":
        raise EvaluationError(f"plugin `{plugin}` asked to steer; only a policy can")
    if value not in actions and value != ALLOW:
        raise EvaluationError(f"plugin `{plugin}` asked for an unknown action{suggest(value, actions)}")
    return value


def checked_response(value: object) -> Response:
    """What an action returned. Raises EvaluationError for anything that is not a whole response."""
    match value:
        case Answer() if not is_text(value.text):
            raise _wrong("the text of an answer", value.text)
        case Retry() if not _is_conversation(value.messages):
            raise _wrong("the messages of a retry", value.messages)
        case Otherwise() if value.action not in get_args(FailureAction):
            raise EvaluationError("an action can give way to `block`, `allow` and `escalate` only")
        case Answer() | Retry() | Otherwise():
            checked_ticket(value.ticket)
            return value
        case _:
            raise _wrong("a response", value)


def checked_ticket(value: object) -> Ticket | None:
    """A ticket, or None if there is none. Raises EvaluationError for anything else."""
    if value is None or isinstance(value, Ticket):
        return value
    raise _wrong("a ticket", value)


def _is_conversation(messages: object) -> bool:
    return (
        isinstance(messages, list | tuple)
        and bool(messages)  # pyright: ignore[reportUnknownArgumentType]
        and all(isinstance(m, Message) and m.role in get_args(Role) and is_text(m.content) for m in messages)  # pyright: ignore[reportUnknownVariableType]
    )


def _wrong(what: str, value: object) -> EvaluationError:
    return EvaluationError(f"{what} is not valid (type {type(value).__name__})")
