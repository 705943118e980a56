"""Changes to logits that a caller asks for: penalties on tokens of the reply, and biases."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor

from guardrail.types import Sampling


class Penalties(LogitsProcessor):
    """The penalties and biases of `sampling`, as in the OpenAI API. `width`: columns before the replies."""

    def __init__(self, sampling: Sampling, width: int) -> None:
        self._sampling, self._width = sampling, width
        self._tokens = torch.tensor([token for token, _ in sampling.logit_bias], dtype=torch.long)
        self._biases = torch.tensor([bias for _, bias in sampling.logit_bias])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [rows, vocabulary], less what tokens of the reply so far [rows, width:] cost."""
        counts = torch.zeros_like(scores)
        reply = input_ids[:, self._width :]
        counts.scatter_add_(1, reply, torch.ones_like(reply, dtype=scores.dtype))
        frequency, presence = self._sampling.frequency_penalty, self._sampling.presence_penalty
        scores = scores - frequency * counts - presence * (counts > 0)
        if len(self._tokens) == 0:
            return scores
        biases = self._biases.to(scores).expand(len(scores), -1)
        return scores.index_add(1, self._tokens.to(scores.device), biases)
