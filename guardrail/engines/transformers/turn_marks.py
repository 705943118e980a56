"""Marks in the place of texts, to see which turns a chat template leaves out.

A template may drop a role, or tool calls, without a word. Looking for the texts themselves would not do:
templates trim, escape and merge them, and a short text is found by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from guardrail.types import Message, Role, ToolCall

Turn: TypeAlias = tuple[Role, bool, int]
"""Role, whether there is text, and the number of tool calls."""
Shape: TypeAlias = tuple[Turn, ...]
TOOL_NAME = "markedtool"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "a tool",
        "parameters": {"type": "object", "properties": {}},
    },
}


def shape(messages: Sequence[Message]) -> Shape:
    """The form of a conversation: who speaks when."""
    return tuple((m.role, bool(m.content.strip()), len(m.tool_calls)) for m in messages)


def marked(turns: Shape) -> list[Message]:
    """A conversation of this form, with marks as its texts, its calls and their arguments."""
    found: list[Message] = []
    waiting: list[ToolCall] = []
    for i, (role, text, calls) in enumerate(turns):
        made = tuple(_call(i, j) for j in range(calls))
        answered = waiting.pop(0) if role == "tool" and waiting else None
        waiting += made
        asked = answered or _call(i, 0)
        labels = (asked.id, asked.name) if role == "tool" else (None, None)
        found.append(Message(role, mark(i) if text else "", made, *labels))
    return found


def missing(turns: Shape, rendered: str) -> str | None:
    """The first turn whose marks are not in the rendered text, in words."""
    for i, (role, text, calls) in enumerate(turns):
        if text and mark(i) not in rendered:
            return f"the chat template leaves out turn {i + 1}, of the role `{role}`"
        pairs = [(_call(i, j).name, mark(i, j)) for j in range(calls)]
        if not all(part in rendered for pair in pairs for part in pair):
            return f"the chat template leaves out the tool calls of turn {i + 1}"
    return None


def mark(turn: int, call: int | None = None) -> str:
    """What stands for the text of a turn, or for the argument of one of its calls."""
    return f"markedturn{turn}x" if call is None else f"markedargument{turn}x{call}x"


def _call(turn: int, call: int) -> ToolCall:
    # some templates want ids of nine letters and digits
    return ToolCall(
        f"c{turn % 10_000:04}{call % 10_000:04}",
        f"markedcall{turn}x{call}x",
        f'{{"value": "{mark(turn, call)}"}}',
    )
