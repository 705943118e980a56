"""Sampling with one seed per row, so that a reply does not depend on the rest of its batch.

Each row has its own stream of uniform numbers, drawn on the CPU, and step t takes the token at which the
cumulative distribution passes number t (inversion). Two runs differ only if rounding moves that boundary
across the number: about one token in a million in float32, more in half precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class SeededRows(LogitsProcessor):
    """Leaves only one token possible in each row: the one chosen by the row's own random stream.

    prompt: the columns before the reply. temperature > 0; top_p keeps the smallest set of tokens with at
    least this probability (Holtzman et al. 2020). Use with greedy decoding.
    """

    def __init__(
        self, seeds: Sequence[int], prompt: int, new_tokens: int, temperature: float, top_p: float
    ) -> None:
        self.prompt, self.temperature, self.top_p = prompt, temperature, top_p
        self.draws = torch.stack([_stream(seed, new_tokens) for seed in seeds])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [rows, vocabulary] to logits with one finite entry in each row."""
        draw = self.draws[:, input_ids.shape[1] - self.prompt, None].to(scores.device)
        probabilities = torch.softmax(scores.double() / self.temperature, dim=-1)
        if self.top_p < 1:
            probabilities = _nucleus(probabilities, self.top_p)
        token = _inverted(probabilities, draw)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def _stream(seed: int, length: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed % (1 << 63))
    return torch.rand(length, generator=generator, dtype=torch.float64)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(1, places, ordered.masked_fill(before >= top_p, 0.0))


def _inverted(probabilities: Tensor, draw: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(-1)
    token = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)
    return token.clamp(max=probabilities.shape[1] - 1)
