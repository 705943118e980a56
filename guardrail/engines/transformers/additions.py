"""What has been put into a model: modules of other libraries than its own, such as adapters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Leaf: TypeAlias = str | int | float | bool
PLUMBING = frozenset(nn.Module().__dict__)
"""Attributes of every module: its tensors and parts, hooks and mode."""
REWRITTEN = frozenset({"dynamic", "longrope"})
"""Kinds of rotary embeddings whose forward pass rewrites their own buffers."""


def additions(model: Any) -> dict[str, nn.Module]:
    """The modules, by name, whose classes are not the architecture's, PyTorch's or the quantiser's."""
    quantised = getattr(getattr(model.config, "quantization_config", None), "quant_method", None)
    known = {"torch", "transformers", _library(type(model))}
    quantiser = str(getattr(quantised, "value", quantised)).replace("-", "_")
    found = model.named_modules()
    return {
        name: module
        for name, module in found
        if (library := _library(type(module))) not in known and not library.startswith(quantiser)
    }


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def settings(module: nn.Module) -> list[tuple[str, Leaf]]:
    """A module's own numbers, names and switches, without those that are off, by their paths.

    Off ones are left out so that a library may add a switch without making every model another.
    """
    return sorted((path, value) for path, value in _own(module) if isinstance(value, Leaf) and value)


def loose_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that a module holds as plain attributes, by their paths: neither parameters nor buffers."""
    return {path: value for path, value in _own(module) if isinstance(value, Tensor)}


def _own(module: nn.Module) -> Iterator[tuple[str, object]]:
    own = {key: value for key, value in module.__dict__.items() if key not in PLUMBING}
    return _leaves("", own)


def is_setting(name: str, value: object) -> bool:
    """Whether an attribute of a module holds plain values and nothing else."""
    return name not in PLUMBING and all(isinstance(leaf, Leaf | None) for _, leaf in _leaves("", value))


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    """All values inside containers, with their paths."""
    if isinstance(value, dict):
        items = list(value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    elif isinstance(value, set | frozenset):
        items = [(item, True) for item in value]  # pyright: ignore[reportUnknownVariableType]
    else:
        yield path, value
        return
    for key, item in items:  # pyright: ignore[reportUnknownVariableType]
        yield from _leaves(f"{path}.{key}", item)


def unfiled_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors that no file holds and that are not what the model itself computes, by name."""
    foreign = additions(model)
    for name, module in model.named_modules():
        here = dict(module.named_buffers(recurse=False))
        if name in foreign:
            yield from ((f"{name}.{key}", buffer) for key, buffer in here.items())
            yield from ((name + path, tensor) for path, tensor in loose_tensors(module).items())
        elif set(here) & module._non_persistent_buffers_set and _computes(module):
            made = _made_again(model, module)
            yield from ((f"{name}.{key}", b) for key, b in here.items() if not _close(b, made[key]))


def _computes(module: nn.Module) -> bool:
    """Whether a module is nothing but its buffers, which it computes once."""
    parts = [*module.parameters(), *module.children()]
    return not parts and not rewrites_buffers(module)


def rewrites_buffers(module: nn.Module) -> bool:
    """Whether the module's own forward pass changes its buffers."""
    kind = getattr(module, "rope_type", None)
    kinds = kind.values() if isinstance(kind, dict) else [kind]  # pyright: ignore[reportUnknownVariableType]
    return bool(REWRITTEN & set(kinds))  # pyright: ignore[reportUnknownArgumentType]


def _made_again(model: Any, module: nn.Module) -> dict[str, Tensor]:
    """The buffers of a copy that the model initialises; its own where it cannot."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        twin = copy.deepcopy(module)
        model._init_weights(twin)
    return dict(twin.named_buffers(recurse=False))


def _close(one: Tensor, other: Tensor) -> bool:
    if one.device.type == "meta":
        return True
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-2, atol=1e-6)
