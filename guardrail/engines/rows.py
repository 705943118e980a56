"""Taking rows out of a batch in the middle of `generate`: inputs, outputs and key-value caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guardrail.errors import UnsupportedGeneration

CACHE = "past_key_values"


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
    inputs = {name: _rows(value, kept, prompts) for name, value in kwargs.items() if name != CACHE}
    if (allowed := inputs.get("prefix_allowed_tokens_fn")) is not None:
        inputs["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(kept[row], ids)
    if inputs.get("streamer") is not None:
        inputs["streamer"] = SkipPrompt(inputs["streamer"])
    return inputs


def select_outputs(outputs: Any, rows: Sequence[int], total: int) -> Any:
    """The prefill's outputs for some rows. A cache that the user holds is changed too, as `generate` does."""
    index = torch.tensor(rows)
    for name in list(outputs.keys()):
        if name == CACHE:
            if not all(hasattr(layer, "batch_select_indices") for layer in outputs[name].layers):
                raise UnsupportedGeneration(
                    f"rows of a batch were stopped, and a {type(outputs[name]).__name__} cannot drop rows"
                )
            outputs[name].batch_select_indices(index.to(_device(outputs[name])))
        else:
            outputs[name] = _rows(outputs[name], rows, total)
    return outputs


def _rows(value: Any, rows: Sequence[int], total: int) -> Any:
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == total and len(rows) < total:
        return value[torch.tensor(rows, device=value.device)]
    if isinstance(value, tuple):
        return tuple(_rows(item, rows, total) for item in value)
    return value


def _device(cache: Any) -> torch.device:
    keys = next((layer.keys for layer in cache.layers if getattr(layer, "keys", None) is not None), None)
    return keys.device if keys is not None else torch.device("cpu")


def lengths(cache: Any) -> list[int]:
    """How many positions each layer of a cache holds; empty without a cache."""
    return [] if cache is None else [layer.get_seq_length() for layer in cache.layers]


def rewind(cache: Any, before: Sequence[int]) -> None:
    """Take out of a caller's cache what a stopped forward pass has put in."""
    for i, layer in enumerate(cache.layers if cache is not None else ()):
        past = before[i] if i < len(before) else 0
        if past == 0:
            layer.reset()
        elif (more := layer.get_seq_length() - past) > 0:
            layer.crop(-more)
        if hasattr(layer, "record_past"):
            layer.record_past = False


def record_past(cache: Any) -> None:
    """Make windowed layers keep what `cropped` needs. Raises UnsupportedGeneration where a cache cannot."""
    if cache is None:
        return
    if not all(hasattr(layer, "crop") for layer in cache.layers):
        raise UnsupportedGeneration(
            f"{type(cache).__name__} cannot be cropped, which steering below the last layer read needs"
        )
    cache.activate_past_recording()


def cropped(cache: Any) -> Any:
    """The cache without its last position, recording no more; None stays None."""
    if cache is not None:
        cache.crop(-1)
        _end_recording(cache)
    return cache


def stop_recording(cache: Any) -> None:
    """Put windowed layers back to their window."""
    if cache is not None:
        cache.crop(0)
        _end_recording(cache)


def _end_recording(cache: Any) -> None:
    for layer in cache.layers:
        if hasattr(layer, "record_past"):
            layer.record_past = False
