"""The inputs of a pass over the last prompt tokens of some requests, from those of the pass that held them.

What comes before them is in the cache. The keys and values of the tokens themselves are written again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.continuous.rows import Row


def last_positions(batch: Mapping[str, Any], again: Sequence[Row]) -> dict[str, Any]:
    """The arguments of the model for the last token of each row alone."""
    device = batch["input_ids"].device
    columns = torch.tensor([row.end - 1 for row in again], device=device)
    places = torch.arange(len(again), device=device, dtype=batch["logits_indices"].dtype)
    return {
        **batch,
        "input_ids": batch["input_ids"][:, columns],
        "position_ids": batch["position_ids"][:, columns],
        "attention_mask": _masks(batch["attention_mask"], columns),
        "cu_seq_lens_q": _lengths(batch["cu_seq_lens_q"], again),
        "max_length_q": 1,
        "logits_indices": places,
        "logits_to_keep": places,
        "write_index": [index[columns] for index in batch["write_index"]],
        # without earlier pieces nothing was read from the cache; now this pass's tokens are there
        "read_index": [
            read if read.numel() else write
            for read, write in zip(batch["read_index"], batch["write_index"], strict=True)
        ],
    }


def _masks(masks: Any, columns: Tensor) -> Any:
    if masks is None or isinstance(masks, Tensor):
        return masks if masks is None else masks[..., columns, :]
    return {kind: mask[..., columns, :] for kind, mask in masks.items()}


def _lengths(starts: Tensor, again: Sequence[Row]) -> Tensor:
    """[requests + 1] where the queries of each request begin: one token of those that are repeated."""
    ends = {row.end for row in again}
    counts = [int(end in ends) for end in starts.tolist()[1:]]
    return torch.tensor([0, *accumulate(counts)], dtype=starts.dtype, device=starts.device)
