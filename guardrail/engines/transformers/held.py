"""Where a model really holds its weights: quantised and distributed ones are wrappers around plain tensors,
and torch's own dynamic quantisation packs them into objects that are neither parameters nor buffers.
"""
# what a module holds is in no public attribute
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def is_wrapper(tensor: Tensor) -> bool:
    """Whether a tensor has its values in others."""
    return is_traceable_wrapper_subclass(tensor)


def plain(tensor: Tensor) -> list[Tensor]:
    """The tensors that hold a tensor's values: itself, or those that a wrapper is made of."""
    if not is_wrapper(tensor):
        return [tensor]
    names: list[str] = tensor.__tensor_flatten__()[0]  # type: ignore[attr-defined]
    return [part for name in names for part in plain(getattr(tensor, name))]


def packs(module: nn.Module) -> list[Any]:
    """The objects of C++ in which a module keeps weights."""
    return [value for value in module.__dict__.values() if isinstance(value, torch.ScriptObject)]


def packed(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights in such objects, unpacked, by name."""
    for name, module in model.named_modules():
        if not packs(module):
            continue
        state: dict[str, Any] = {}
        module._save_to_state_dict(state, f"{name}.", True)
        for key, value in state.items():
            if isinstance(value, tuple):
                yield from ((key, part.dequantize()) for part in value if isinstance(part, Tensor))
