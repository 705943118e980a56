"""Log probabilities of the tokens of replies: looked at between the model and what it samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from guardrail.types import TokenLogprob

LEAST = -9999.0
"""What the OpenAI API writes for a token that is impossible: JSON has no infinity."""


class Logprobs(LogitsProcessor):
    """Sees the logits of every step and changes none. `taken` then says which tokens were sampled.

    `top`: how many alternatives to keep. Only the newest steps are held, not a reply's worth of logits.
    """

    def __init__(self, tokenizer: Any, top: int) -> None:
        self._top = top
        self._steps: deque[Tensor] = deque()
        self._text: Callable[[int], str] = lru_cache(4096)(lambda token: token_text(tokenizer, token))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The logits [rows, vocabulary] as they are."""
        self._steps.append(torch.log_softmax(scores.float(), dim=-1))
        return scores

    def taken(self, tokens: Tensor) -> list[TokenLogprob]:
        """The log probabilities of the tokens [rows] of the earliest step that was not asked for yet."""
        step = self._steps.popleft()
        own = step.gather(1, tokens.to(step.device)[:, None])[:, 0].tolist()
        values, ids = (found.tolist() for found in step.topk(min(self._top, step.shape[1])))
        return [
            TokenLogprob(self._text(token), max(value, LEAST), self._alternatives(ids[row], values[row]))
            for row, (token, value) in enumerate(zip(tokens.tolist(), own, strict=True))
        ]

    def _alternatives(self, ids: Sequence[int], values: Sequence[float]) -> tuple[TokenLogprob, ...]:
        pairs = zip(ids, values, strict=True)
        return tuple(TokenLogprob(self._text(token), max(value, LEAST)) for token, value in pairs)


def token_text(tokenizer: Any, token: int) -> str:
    """The text of a token in the middle of others."""
    # some tokenizers drop a space at the beginning of a text: the second of two tokens keeps it
    one, two = (tokenizer.decode([token] * count, skip_special_tokens=False) for count in (1, 2))
    return two[len(one) :]
