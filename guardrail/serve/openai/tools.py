"""The fields `tools` and `tool_choice`: what the model is offered, and what it cannot be made to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guardrail.serve.errors import ApiError

UNSUPPORTED = "unsupported_parameter"
CHOICE = (
    "tool_choice {} is not supported: the model chooses whether it calls a tool. Use 'auto', or 'none' to "
    "offer no tools."
)


def offered(
    tools: Sequence[Mapping[str, Any]] | None,
    choice: str | Mapping[str, Any] | None,
    parallel: bool | None,
) -> Sequence[Mapping[str, Any]]:
    """The tools that the model is told of. Raises ApiError for what it cannot be made to do."""
    for number, tool in enumerate(tools or ()):
        _check(tool, f"tools[{number}]")
    if choice not in (None, "auto", "none"):
        text = CHOICE.format(f"'{choice}'" if isinstance(choice, str) else "of one tool")
        raise ApiError(400, text, code=UNSUPPORTED, param="tool_choice")
    if choice is not None and not tools:
        text = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        raise ApiError(400, text, param="tool_choice")
    if parallel is False and tools:
        text = "parallel_tool_calls false is not supported: the model may call several tools. Leave it out."
        raise ApiError(400, text, code=UNSUPPORTED, param="parallel_tool_calls")
    return () if choice == "none" else tuple(tools or ())


def check_format(value: Mapping[str, Any] | None, param: str) -> None:
    """Raises ApiError for a format of replies other than text."""
    if value is not None and value.get("type") != "text":
        text = f"Unsupported parameter: '{param}' is not supported with this model; replies are free text."
        raise ApiError(400, text, code=UNSUPPORTED, param=param)


def _check(tool: Mapping[str, Any], param: str) -> None:
    if tool.get("type") != "function":
        text = f"Invalid value for '{param}.type': this server knows tools of the type 'function' only."
        raise ApiError(400, text, code="invalid_value", param=f"{param}.type")
    function = tool.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        text = f"Missing required parameter: '{param}.function.name'."
        raise ApiError(400, text, code="missing_required_parameter", param=f"{param}.function.name")
