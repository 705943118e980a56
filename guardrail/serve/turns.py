"""The content of messages as the OpenAI API has it: what has the wrong type is an error of the request.

What the API allows and this server cannot read, such as images, is left to policies (`unsupported_input`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guardrail.serve.errors import ApiError

TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Types of content parts that are text, and the field that holds it."""
INSTEAD = ("tool_calls", "function_call", "audio", "refusal")
"""What a message may have in place of content."""


def check_turns(turns: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raises ApiError for the first message whose content is missing or has the wrong type."""
    for number, turn in enumerate(turns):
        check_turn(turn, f"{name}[{number}]")


def check_turn(turn: Mapping[str, Any], name: str) -> None:
    """Raises ApiError for content that is missing or has the wrong type."""
    content, param = turn.get("content"), f"{name}.content"
    if isinstance(content, list):
        for number, part in enumerate(content):  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
            _check_part(part, f"{param}[{number}]")
    elif content is None and not any(turn.get(key) for key in INSTEAD):
        raise _missing(param)
    elif content is not None and not isinstance(content, str):
        raise _mistyped(param, "a string or an array of parts")


def _check_part(part: object, param: str) -> None:
    if not isinstance(part, dict):
        raise _mistyped(param, "an object")
    kind: object = part.get("type")  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
    if not isinstance(kind, str):
        raise _missing(f"{param}.type")
    field = TEXTS.get(kind)
    if field is not None and field not in part:
        raise _missing(f"{param}.{field}")
    if field is not None and not isinstance(part[field], str):
        raise _mistyped(f"{param}.{field}", "a string")


def _missing(param: str) -> ApiError:
    text = f"Missing required parameter: '{param}'."
    return ApiError(400, text, code="missing_required_parameter", param=param)


def _mistyped(param: str, wanted: str) -> ApiError:
    return ApiError(400, f"Invalid type for '{param}': expected {wanted}.", code="invalid_type", param=param)
