"""Notices that a model is no longer the one that was loaded, in a few tens of microseconds.

Modules and parameters are compared by identity, tensors by version, address and a few of their bytes: writing
through `.data` leaves the version alone, and giving another `.data` leaves the bytes of the old one alone.
"""
# what a module holds and who listens to it is in no public attribute
# pyright: reportPrivateUsage=false

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from guardrail.engines.transformers.additions import additions, is_setting, loose_tensors, rewrites_buffers
from guardrail.engines.transformers.held import is_wrapper, packs, plain
from guardrail.engines.transformers.standin import StandIn

Check: TypeAlias = Callable[[], bool]
"""Whether something is as it was."""

VERSION, FORWARD = attrgetter("_version"), attrgetter("forward")
CAPTURING = "transformers.utils.output_capturing"
"""Puts hooks on a model when hidden states or attentions are first asked for; they change nothing."""
EVERYWHERE = [torch_modules._global_forward_hooks, torch_modules._global_forward_pre_hooks]
"""Hooks on all modules of the process."""
PLACES, WIDTH = 4, 4
"""How many places of each tensor are looked at, and how many bytes at each."""


class Watch:
    """What the forward pass of a model uses, as it is now, and how its tokenizer makes prompts.

    `change` sees modules, parameters, buffers and forward hooks that came, went or were replaced, another
    `forward` of a module or of its class, another class, values written or moved, and settings of modules
    that other libraries put in (adapters).
    It does not see: weights that accelerate keeps elsewhere between passes, numbers that the architecture's
    own modules hold, and single values written through `.data` or outside of PyTorch. Of a tokenizer it sees
    tokens that came or went and another chat template, not other settings.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        modules = tuple(model.modules())
        added = list(additions(model).values())
        whole = _tensors(modules) + [t for m in added for t in loose_tensors(m).values()]
        tensors = [part for tensor in whole for part in plain(tensor)]
        self._beyond: dict[str, Check] = {
            "forward hooks": _same_hooks([t for m in modules for t in _hooks(m)] + EVERYWHERE),
            "a module's forward method": _same_forwards(modules),
            "the class of a module, or its forward method": _same_classes(modules),
        }
        self._checks: dict[str, Check] = self._beyond | {
            "modules or parameters": _same_tables([t for m in modules for t in _holdings(m)]),
            "values of weights": _same_versions(tensors),
            "the memory of weights": _same_addresses(tensors),
            "bytes of weights": _same_bytes(tensors),
            **_same_parts(modules, whole),
            "settings of adapters": _same_settings(added),
            "the tokenizer's tokens or chat template": _same_tokenizer(tokenizer),
        }

    def change(self) -> str | None:
        """What is no longer as it was, in words; None if nothing is known to have changed."""
        found = [what for what, same in self._checks.items() if not same()]
        return ", ".join(found) or None

    @property
    def beyond_fingerprints(self) -> bool:
        """Whether something has changed that no fingerprint shows: hooks, or a `forward`."""
        return not all(same() for same in self._beyond.values())


def _hooks(module: nn.Module) -> list[dict[Any, Any]]:
    return [module._forward_hooks, module._forward_pre_hooks]


def _holdings(module: nn.Module) -> list[dict[str, Any]]:
    """A module's parts and tensors, without tables that are rewritten by forward passes."""
    tables: list[dict[str, Any]] = [module._modules, module._parameters]
    if not rewrites_buffers(module):
        tables.append(module._buffers)
    return [table for table in tables if not any(map(_is_elsewhere, table.values()))]


def _is_elsewhere(value: object) -> bool:
    """Whether accelerate puts a tensor into its place for every pass, and keeps a placeholder there."""
    return isinstance(value, Tensor) and value.device.type == "meta"


def _tensors(modules: Sequence[nn.Module]) -> list[Tensor]:
    held = (value for module in modules for table in _holdings(module) for value in table.values())
    return list({id(value): value for value in held if isinstance(value, Tensor)}.values())


def _same_tables(tables: Sequence[Mapping[Any, Any]]) -> Check:
    empty, filled = [t for t in tables if not t], [t for t in tables if t]
    before = [dict(table) for table in filled]

    def same() -> bool:
        try:
            return not any(empty) and filled == before
        except RuntimeError:
            # another tensor is in a tensor's place, and they have been compared by value
            return False

    return same


def _same_hooks(tables: Sequence[Mapping[Any, Any]]) -> Check:
    before, same_tables = list(map(_active, tables)), _same_tables(tables)

    def same() -> bool:
        nonlocal same_tables
        if same_tables():
            return True
        if list(map(_active, tables)) != before:
            return False
        same_tables = _same_tables(tables)
        return True

    return same


def _active(hooks: Mapping[Any, Any]) -> list[Any]:
    """The hooks, without those by which transformers hands out hidden states and attentions."""
    return [hook for hook in hooks.values() if getattr(hook, "__module__", None) != CAPTURING]


def _same_forwards(modules: Sequence[nn.Module]) -> Check:
    plain = [m.__dict__ for m in modules if "forward" not in m.__dict__]
    replaced = [m.__dict__ for m in modules if "forward" in m.__dict__]
    before = list(map(_own_forward, replaced))

    def same() -> bool:
        none = not [table for table in plain if "forward" in table]
        return none and list(map(_own_forward, replaced)) == before

    return same


def _same_classes(modules: Sequence[nn.Module]) -> Check:
    kinds = list(map(type, modules))
    classes = list(dict.fromkeys(kinds))
    before = list(map(FORWARD, classes))
    return lambda: list(map(type, modules)) == kinds and list(map(FORWARD, classes)) == before


def _own_forward(table: Mapping[str, Any]) -> Any:
    """The `forward` on a module, without what a guard has put in front of it."""
    found = table.get("forward")
    return found.own if isinstance(found, StandIn) else found


def _same_parts(modules: Sequence[nn.Module], tensors: Sequence[Tensor]) -> dict[str, Check]:
    """Compares what quantised weights are made of; nothing for models that have none."""
    packing = [module for module in modules if packs(module)]
    wrappers = [tensor for tensor in tensors if is_wrapper(tensor)]
    # kept, so that nothing else gets their identity
    before = list(map(packs, packing)), list(map(plain, wrappers))

    def same() -> bool:
        now = list(map(packs, packing)), list(map(plain, wrappers))
        return _identities_of(now) == _identities_of(before)

    return {"parts of quantised weights": same} if packing or wrappers else {}


def _identities_of(parts: tuple[list[list[Any]], list[list[Tensor]]]) -> list[int]:
    return [id(one) for kind in parts for owned in kind for one in owned]


def _same_versions(tensors: Sequence[Tensor]) -> Check:
    counted = [tensor for tensor in tensors if not tensor.is_inference()]
    before = sum(map(VERSION, counted))
    # versions only rise
    return lambda: sum(map(VERSION, counted)) == before


def _same_addresses(tensors: Sequence[Tensor]) -> Check:
    placed = [tensor for tensor in tensors if _has_memory(tensor)]
    before = list(map(Tensor.data_ptr, placed))
    return lambda: list(map(Tensor.data_ptr, placed)) == before


def _has_memory(tensor: Tensor) -> bool:
    try:
        return tensor.numel() > 0 and tensor.data_ptr() != 0
    except RuntimeError:
        return False


def _same_bytes(tensors: Sequence[Tensor]) -> Check:
    placed = [tensor.detach() for tensor in tensors if _has_memory(tensor) and tensor.is_contiguous()]
    here = [tensor for tensor in placed if tensor.device.type == "cpu"]
    there = [tensor for tensor in placed if tensor.device.type != "cpu"]
    checks = [_same_bytes_here(here)] if here else []
    for device in {tensor.device for tensor in there}:
        checks.append(_same_bytes_there([tensor for tensor in there if tensor.device == device]))
    return lambda: all(same() for same in checks)


def _same_bytes_here(tensors: Sequence[Tensor]) -> Check:
    parts = [part.numpy() for tensor in tensors for part in _parts(tensor)]
    first = min(parts, key=lambda part: part.ctypes.data)
    base = first.ctypes.data
    offsets = np.concatenate([np.arange(len(part)) + (part.ctypes.data - base) for part in parts])
    # one array over all of memory, of which only bytes that `parts` keep alive are ever read: one look
    # instead of one for each tensor
    memory = as_strided(first, (int(offsets.max()) + 1,), (1,), writeable=False)
    before = memory.take(offsets).tobytes()
    kept = tuple(parts)
    return lambda: bool(kept) and memory.take(offsets).tobytes() == before


def _same_bytes_there(tensors: Sequence[Tensor]) -> Check:
    parts = [part for tensor in tensors for part in _parts(tensor)]
    before = torch.cat(parts)
    return lambda: torch.equal(torch.cat(parts), before)


def _parts(tensor: Tensor) -> list[Tensor]:
    """Views of a few bytes at a few places of a tensor."""
    flat = tensor.reshape(-1).view(torch.uint8)
    last = max(0, len(flat) - WIDTH)
    step = tensor.element_size()
    starts = {round(i * last / (PLACES - 1)) // step * step for i in range(PLACES)}
    return [flat[start : start + WIDTH] for start in sorted(starts)]


def _same_settings(modules: Iterable[nn.Module]) -> Check:
    """Compares all plain values that modules hold, also those that their classes preset."""
    read = [(_reader(module), module) for module in modules]
    before = [(copy.deepcopy(reader(module)), len(module.__dict__)) for reader, module in read]
    holding = [(module, loose) for _, module in read if (loose := _identities(module))]

    def same() -> bool:
        now = [(reader(module), len(module.__dict__)) for reader, module in read]
        return now == before and all(_identities(module) == loose for module, loose in holding)

    return same


def _same_tokenizer(tokenizer: Any) -> Check:
    before = _making(tokenizer)
    return lambda: _making(tokenizer) == before


def _making(tokenizer: Any) -> tuple[int, object]:
    """What tells that a tokenizer makes other prompts."""
    return 0 if tokenizer is None else len(tokenizer), getattr(tokenizer, "chat_template", None)


def _identities(module: nn.Module) -> list[int]:
    return list(map(id, loose_tensors(module).values()))


def _reader(module: nn.Module) -> Callable[[nn.Module], object]:
    preset = {name: value for kind in type(module).__mro__ for name, value in vars(kind).items()}
    names = sorted(name for name, value in (preset | module.__dict__).items() if is_setting(name, value))
    return attrgetter("__class__", *names)
