"""The look behind a layer as an operator of torch, for models that vLLM compiles.

Compiled code does not run the Python of hooks, but it calls operators that were met when it was traced. vLLM
divides the graph at this one (`splitting_ops`), so CUDA graphs hold what lies between the ends of two layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from vllm.utils.torch_utils import direct_register_custom_op

from guardrail_vllm.worker.blocks import Stream
from guardrail_vllm.worker.guard import WorkerGuard

NAME = "guardrail::look"
LIBRARY = torch.library.Library("guardrail", "FRAGMENT")
"""Kept, because the operator ends with it."""
_guard: ContextVar[WorkerGuard | None] = ContextVar("guard", default=None)


def split_at_looks(compilation: Any) -> None:
    """Have vLLM divide the graph at every look; its cache of compiled code keeps such graphs apart."""
    compilation.splitting_ops = [*(compilation.splitting_ops or ()), NAME]


@contextmanager
def looking(guard: WorkerGuard) -> Iterator[None]:
    """Meanwhile, looks of this thread's passes are the guard's. In passes of vLLM's own nobody looks."""
    token = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(token)


def look(number: int, module: object, arguments: object, output: object) -> None:
    """A forward hook of layer `number`, to be traced."""
    stream = Stream(output)
    torch.ops.guardrail.look(stream.hidden, stream.residual, number)


def _look(hidden: Tensor, residual: Tensor | None, layer: int) -> None:
    if (guard := _guard.get()) is not None:
        guard.look(layer, (hidden, residual))


def _traced(hidden: Tensor, residual: Tensor | None, layer: int) -> None:
    """Nothing: it returns no tensor."""


direct_register_custom_op("look", _look, mutates_args=["hidden"], fake_impl=_traced, target_lib=LIBRARY)
