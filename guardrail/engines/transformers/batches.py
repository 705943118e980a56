"""Turns rows of token ids into tensors: batched by length, padded on either side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def bucketed(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of at most `size`, similar lengths together; equal lengths keep their order."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def padded(
    rows: Sequence[Sequence[int]], pad: int, *, left: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """ids and mask [rows, tokens]."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=ids.dtype)
        mask[i, place] = 1
    return ids.to(device), mask.to(device)
