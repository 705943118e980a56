"""Which tokens of a rendered conversation are the text of a turn.

Chat templates trim, escape and merge texts, move system prompts and add their own, so a text is not searched
for. Instead the conversation is rendered once more with a mark in its place: what stands before and after the
mark stands before and after the text. If the rest differs in any character, that is an error, never a guess.
A token belongs to a text if any of its characters does, also where a tokenizer merges across the border.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeAlias

from guardrail.engines import Span
from guardrail.errors import PromptError
from guardrail.types import Message, Position

Rendering: TypeAlias = Callable[[Sequence[Message]], str]
"""The text that a chat template makes of messages."""
MARK = "markedtext"
NO_TEXT = "the last user turn has no text, and a policy reads it (`user_mean`)"
WHOLE: tuple[Position, ...] = ("last", "prompt_mean")
"""Positions whose tokens are known without looking at turns."""


def spans(
    positions: Collection[Position],
    messages: Sequence[Message],
    offsets: Sequence[Span],
    text: str,
    render: Rendering,
) -> dict[Position, tuple[Span, ...]]:
    """The spans of tokens at each position. `offsets`: the characters of `text` that each token stands for.

    Raises PromptError if the turn has no text, or cannot be found in what the chat template makes of it.
    """
    found: dict[Position, tuple[Span, ...]] = {}
    for position in sorted(positions):
        turns = turns_of(position, messages)
        within = [tokens_within(offsets, text_span(text, messages, i, render)) for i in turns]
        found[position] = tuple(span for span in within if span) or whole(position, len(offsets))
    if "user_mean" in found and not found["user_mean"]:
        raise PromptError(NO_TEXT)
    return found


def whole(position: Position, tokens: int) -> tuple[Span, ...]:
    """The spans of positions that no turn tells."""
    return {"last": ((tokens - 1, tokens),), "prompt_mean": ((0, tokens),)}.get(position, ())


def turns_of(position: Position, messages: Sequence[Message]) -> list[int]:
    """The places of the messages that a position reads. Raises PromptError if no user has spoken."""
    if position == "user_mean":
        users = [i for i, message in enumerate(messages) if message.role == "user"]
        if not users:
            raise PromptError("there is no user turn, and a policy reads its text (`user_mean`)")
        return users[-1:]
    if position == "tool_mean":
        replied = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=-1)
        return [i for i, message in enumerate(messages) if message.role == "tool" and i > replied]
    return []


def text_span(rendered: str, messages: Sequence[Message], place: int, render: Rendering) -> Span:
    """The characters of `rendered` that the chat template made of one message's text."""
    mark = MARK
    while mark in rendered:
        mark += "x"
    marked = [*messages[:place], replace(messages[place], content=mark), *messages[place + 1 :]]
    before, found, after = render(marked).partition(mark)
    turn = f"the text of turn {place + 1}, of the role `{messages[place].role}`"
    if not found:
        raise PromptError(f"the chat template leaves out {turn}, so it cannot be read")
    if mark in after:
        raise PromptError(f"the chat template shows {turn}, more than once, so it cannot be found")
    fits = len(before) + len(after) <= len(rendered)
    if not (fits and rendered.startswith(before) and rendered.endswith(after)):
        raise PromptError(
            f"what the chat template makes of other turns depends on {turn}; it cannot be found"
        )
    return len(before), len(rendered) - len(after)


def tokens_within(offsets: Sequence[Span], characters: Span) -> Span | None:
    """The run of tokens that have a character in this span; None if there is none."""
    start, end = characters
    inside = [i for i, (first, last) in enumerate(offsets) if first < last and first < end and last > start]
    return (inside[0], inside[-1] + 1) if inside and start < end else None
