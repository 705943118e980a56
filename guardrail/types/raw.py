"""A prompt that no chat template renders."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A text that the model continues as it stands, in place of messages; `ids` are its tokens, if known.

    Without `ids` the tokenizer adds what it puts in front of any text, and understands special tokens in it.
    """

    text: str
    ids: tuple[int, ...] | None = None
