"""Key-value caches of transformers: their name, their rows, their lengths.

transformers calls a cache `cache` from 5.24 on, and `past_key_values` before: in the arguments of `generate`
and of models, and in their outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from guardrail.errors import UnsupportedGeneration

CACHES = ("cache", "past_key_values")
"""The names of a cache, newest first."""


def cache_name(holder: Mapping[str, Any]) -> str:
    """What arguments or outputs call their cache; the newest name if they hold none."""
    return next((name for name in CACHES if name in holder), CACHES[0])


def cache_of(holder: Mapping[str, Any]) -> Any:
    """The cache among arguments or outputs, or None."""
    return holder.get(cache_name(holder))


def holds_tokens(cache: Any) -> bool:
    """Whether something given as a cache has text in it, which nobody but the model reads."""
    if cache is None:
        return False
    length = getattr(cache, "get_seq_length", None)
    return length is None or length() > 0


def keep_rows(cache: Any, rows: Sequence[int]) -> None:
    """Drop all other rows, in place. Raises UnsupportedGeneration if the cache cannot do that."""
    if not all(hasattr(layer, "batch_select_indices") for layer in cache.layers):
        raise UnsupportedGeneration(
            f"rows of a batch were stopped, and a {type(cache).__name__} cannot drop rows"
        )
    cache.batch_select_indices(torch.tensor(rows, device=_device(cache)))


def _device(cache: Any) -> torch.device:
    keys = next((layer.keys for layer in cache.layers if getattr(layer, "keys", None) is not None), None)
    return keys.device if keys is not None else torch.device("cpu")


def lengths(cache: Any) -> list[int]:
    """How many positions each layer of a cache holds; empty without a cache."""
    return [] if cache is None else [layer.get_seq_length() for layer in cache.layers]


def rewind(cache: Any, before: Sequence[int]) -> None:
    """Take out of a caller's cache what a stopped forward pass has put in."""
    if cache is None:
        return
    # the caller may use the cache for the next turn, which must not attend to a prompt that was refused
    for i, layer in enumerate(cache.layers):
        # a dynamic cache makes its layers as they are first used: there may be more of them than before
        past = before[i] if i < len(before) else 0
        if past == 0:
            _empty(layer)
        elif (more := layer.get_seq_length() - past) > 0:
            layer.crop(-more)
    _end_recording(cache)


def _empty(layer: Any) -> None:
    from transformers.cache_utils import DynamicLayer

    if isinstance(layer, DynamicLayer):
        # it grows by concatenation, and older versions of transformers only put zeros into it
        layer.keys = layer.values = None
        layer.is_initialized = False
    layer.reset()


def record_past(cache: Any) -> None:
    """Make windowed layers keep what `cropped` needs. Raises UnsupportedGeneration if they cannot."""
    if cache is None:
        return
    if not all(hasattr(layer, "crop") for layer in cache.layers):
        raise UnsupportedGeneration(
            f"{type(cache).__name__} cannot be cropped, which steering below the last layer read needs"
        )
    # otherwise a windowed layer forgets the oldest position for each new one, and crop cannot bring it back
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
        # taking out nothing, crop still cuts to the window; only then may recording end
        cache.crop(0)
        _end_recording(cache)


def _end_recording(cache: Any) -> None:
    # while it records, a layer keeps every position, for the whole reply
    for layer in cache.layers:
        if hasattr(layer, "record_past"):
            layer.record_past = False
