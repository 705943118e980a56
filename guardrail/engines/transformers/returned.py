"""What `generate` returns besides sequences, when rows were stopped: realigned with the sequences.

What was never computed for a row is NaN (-1 for indices). A cache is not given back, because it lacks rows.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers.generation.utils import GenerateDecoderOnlyOutput

from guardrail.engines.transformers.caches import CACHES
from guardrail.engines.transformers.rows import Kept

NAN = float("nan")


def returned(output: Any, sequences: Tensor, kept: Kept, beams: int, steps: int) -> Any:
    """An output for all rows. `output` has those of `kept`, or is None.

    `beams`: rows of the batch for each prompt, in beam search. `steps`: columns after the prompts.
    """
    if output is None:
        return GenerateDecoderOnlyOutput(sequences=sequences)  # pyright: ignore[reportArgumentType]
    if len(kept.prompts) == kept.total:
        output.sequences = sequences
        return output
    names = {field.name for field in fields(output)} - {"sequences", *CACHES}
    found = {name: _whole(getattr(output, name), kept) for name in names}
    for name in {"scores", "logits"} & names:
        found[name] = _lengthened(found[name], steps)
    if (indices := getattr(output, "beam_indices", None)) is not None:
        found["beam_indices"] = _indices(indices, replace(kept, expand=beams), steps)
    return type(output)(sequences=sequences, **found)


def _whole(value: Any, kept: Kept) -> Any:
    """Every tensor [rows that go on, ...] as [all rows, ...]."""
    if isinstance(value, tuple):
        return tuple(_whole(item, kept) for item in value)
    if not isinstance(value, Tensor):
        return value
    rows = replace(kept, expand=len(value) // len(kept.prompts))
    return rows.whole(value, NAN if value.is_floating_point() else -1)


def _lengthened(found: tuple[Tensor, ...] | None, steps: int) -> tuple[Tensor, ...] | None:
    """A score for every column after the prompts, which an answer in a row's place may have added."""
    if not found:
        return found
    missing = found[0].new_full(found[0].shape, NAN)
    return (*found, *[missing] * (steps - len(found)))


def _indices(indices: Tensor, kept: Kept, steps: int) -> Tensor:
    """Indices [sequences, columns] of rows of the batch, as rows of the whole batch."""
    rows = torch.tensor(kept.rows, device=indices.device)
    moved = torch.where(indices < 0, -1, rows[indices.clamp(min=0)]).to(indices.dtype)
    samples = replace(kept, expand=len(indices) // len(kept.prompts))
    found = indices.new_empty((samples.size, steps))
    # a row that was stopped is its own first beam throughout, so that its missing scores are looked up
    first = torch.arange(kept.total, device=indices.device) * kept.expand
    found[:] = first.to(indices.dtype).repeat_interleave(samples.expand)[:, None]
    found[samples.rows] = -1
    found[torch.tensor(samples.rows, device=found.device), : moved.shape[1]] = moved
    return found
