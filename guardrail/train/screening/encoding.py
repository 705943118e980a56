"""A sample as token ids: the prompt as the chat template renders it, and the reply behind it.

The ids of prompt and reply are concatenated and never tokenised as one text, so that the border between them
is where it is in generation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from guardrail.errors import PromptError
from guardrail.extract.subject import Subject
from guardrail.train.screening.rows import BadRow, Exchange, Sample

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An exchange in tokens."""

    exchange: Exchange
    prompt: Ids = field(repr=False)
    reply: Ids = field(repr=False)


class Encoder:
    """Encodes samples for a model. `longest`: the most tokens of prompt and reply; None for the model's.

    `room`: the tokens that must be left after the prompt for the model's own reply, 0 if it gives none.
    """

    def __init__(self, subject: Subject, longest: int | None = None, room: int = 0) -> None:
        self._renderer = subject.local.renderer
        self._longest, self._limit, self._room = longest, subject.longest, room

    def __call__(self, sample: Sample) -> tuple[Encoded, ...]:
        """Raises BadRow for a sample that the model cannot read whole."""
        return tuple(self._encoded(sample, one) for one in sample.exchanges)

    def _encoded(self, sample: Sample, exchange: Exchange) -> Encoded:
        try:
            prompt = self._renderer.render(exchange.prompt, sample.tools)
        except PromptError as error:
            raise BadRow("unreadable", str(error)) from error
        if prompt.unread:
            raise BadRow("unreadable", prompt.unread)
        found = Encoded(
            exchange=exchange, prompt=prompt.ids, reply=tuple(self._renderer.encode(exchange.reply))
        )
        if not found.reply:
            raise BadRow("empty", "the tokenizer makes no token of the reply")
        self._check(len(found.prompt), len(found.reply))
        return found

    def _check(self, prompt: int, reply: int) -> None:
        if self._longest is not None and prompt + reply > self._longest:
            raise BadRow("too long", f"{prompt + reply} tokens; at most {self._longest} are allowed")
        if prompt + reply > self._limit:
            raise BadRow("too long", f"{prompt + reply} tokens; the model takes {self._limit}")
        if prompt + self._room > self._limit:
            raise BadRow(
                "too long",
                f"a prompt of {prompt} tokens leaves no room for {self._room} tokens of the model's own "
                f"reply; the model takes {self._limit}",
            )
