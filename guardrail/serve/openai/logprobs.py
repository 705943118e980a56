"""Log probabilities as the OpenAI API writes them."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from guardrail.types import TokenLogprob


class TopLogprob(BaseModel):
    """A token that was possible. `bytes`: None if it is part of a character."""

    token: str
    bytes: list[int] | None
    logprob: float


class Logprob(TopLogprob):
    """A token of a reply."""

    top_logprobs: list[TopLogprob]

    @classmethod
    def of(cls, tokens: Iterable[TokenLogprob]) -> list[Logprob]:
        """Those of these tokens."""
        return [
            cls(
                token=one.token,
                bytes=_bytes(one.token),
                logprob=one.logprob,
                top_logprobs=[
                    TopLogprob(token=top.token, bytes=_bytes(top.token), logprob=top.logprob)
                    for top in one.top
                ],
            )
            for one in tokens
        ]


def _bytes(token: str) -> list[int] | None:
    return None if "\ufffd" in token else list(token.encode())
