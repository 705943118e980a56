"""Turns rows of token ids into tensors: batched by length, padded on either side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from guardrail.engines import Span


def bucketed(lengths: Sequence[int], rows: int, tokens: float = math.inf) -> Iterator[list[int]]:
    """Indices in batches of at most `rows` and, padded, at most `tokens`, unless one row alone has more.

    Similar lengths are together. The order of all batches together depends on the lengths alone.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # the longest so far, so the width of the batch with it
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[i] > tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(
    rows: Sequence[Sequence[int]], pad: int, *, left: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """ids and mask [rows, tokens]."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, device="cpu")
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=ids.dtype, device="cpu")
        mask[i, place] = 1
    return ids.to(device), mask.to(device)


def averaging(runs: Sequence[Sequence[Sequence[Span]]], width: int) -> Tensor:
    """[rows, k, tokens]: the weights that average over each set of runs."""
    weights = torch.zeros(len(runs), len(runs[0]), width)
    for i, row in enumerate(runs):
        for j, spans in enumerate(row):
            tokens = sum(end - start for start, end in spans)
            for start, end in spans:
                weights[i, j, start:end] = 1 / max(tokens, 1)
    return weights
