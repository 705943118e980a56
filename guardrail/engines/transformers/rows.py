"""Taking rows out of a batch in the middle of `generate`: of its inputs, and of the prefill's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.caches import CACHES, keep_rows


class SkipPrompt:
    """A streamer that has seen the prompt already: the first `put` of the second call is dropped."""

    def __init__(self, streamer: Any) -> None:
        self._streamer, self._seen = streamer, False

    def put(self, value: Tensor) -> None:
        """Pass tokens on, but not the prompt."""
        if self._seen:
            self._streamer.put(value)
        self._seen = True

    def end(self) -> None:
        """Pass the end on."""
        self._streamer.end()


def kept_rows(kept: Sequence[int], expand: int) -> list[int]:
    """The rows of an expanded batch (beams, samples) that belong to the prompts that go on."""
    return [prompt * expand + i for prompt in kept for i in range(expand)]


def select_inputs(kwargs: Mapping[str, Any], kept: Sequence[int], prompts: int) -> dict[str, Any]:
    """The arguments of `generate` for the rows that go on; the cache comes with the outputs instead."""
    inputs = {name: _rows(value, kept, prompts) for name, value in kwargs.items() if name not in CACHES}
    if (allowed := inputs.get("prefix_allowed_tokens_fn")) is not None:
        inputs["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(kept[row], ids)
    if inputs.get("streamer") is not None:
        inputs["streamer"] = SkipPrompt(inputs["streamer"])
    return inputs


def select_outputs(outputs: Any, rows: Sequence[int], total: int) -> Any:
    """The prefill's outputs for some rows. Also changes a cache that the user holds, as `generate` would."""
    for name in list(outputs.keys()):
        if name in CACHES:
            keep_rows(outputs[name], rows)
        else:
            outputs[name] = _rows(outputs[name], rows, total)
    return outputs


def _rows(value: Any, rows: Sequence[int], total: int) -> Any:
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == total and len(rows) < total:
        return value[torch.tensor(rows, device=value.device)]
    if isinstance(value, tuple):
        return tuple(_rows(item, rows, total) for item in value)
    return value
