"""The replies to one prompt, as they are handed out: whole or in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

Finish: TypeAlias = Literal["stop", "length"]
"""Why a reply ended: by itself or at a stop text, or because it may not be longer."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's text and natural-log probability, by the model itself: before penalties and temperature.

    `top`: the most probable tokens in its place, if they were asked for.
    """

    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant asks for. `arguments` is the JSON text that it wrote."""

    id: str
    name: str
    arguments: str = "{}"

    def as_dict(self) -> dict[str, object]:
        """The format of the OpenAI API."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One reply to a prompt. `logprobs` are those of its tokens, if asked for.

    `text` has no stop text, and no `tool_calls` if those of the model could be read.
    """

    text: str
    finish: Finish = "stop"
    new_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


class Piece(str):
    """A piece of a streamed reply: its text, which reply it belongs to, and its tokens' log probabilities."""

    __slots__ = ("logprobs", "number")
    number: int
    logprobs: tuple[TokenLogprob, ...]

    def __new__(cls, text: str, number: int = 0, logprobs: tuple[TokenLogprob, ...] = ()) -> Self:
        """A text that is part of this reply, of those to one prompt."""
        piece = super().__new__(cls, text)
        piece.number, piece.logprobs = number, logprobs
        return piece
