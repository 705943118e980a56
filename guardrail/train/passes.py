"""Changes what decoder blocks put out in the forward passes of a training, and counts those passes.

Gradient checkpointing runs a block again in the backward pass. Up to transformers 5.19 its hooks run again
with it, in 5.24 they do not. A change is therefore a function of the block's output alone, which gives the
same both times, and passes are counted at the decoder, which is never run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from guardrail.engines.transformers.blocks import decoder_blocks, decoder_of, unwrapped
from guardrail.engines.transformers.executor import hidden_of
from guardrail.errors import SteeringError

Change = Callable[[int, Tensor], Tensor]
"""The new output [rows, tokens, d_model] of a layer for its old one."""


@dataclass(slots=True)
class Counts:
    """Forward passes with gradients that were changed, and blocks that checkpointing changed again."""

    passes: int = 0
    recomputed: int = 0


def blocks_of(model: Any) -> nn.ModuleList:
    """The decoder blocks, also inside adapters and distributed wrappers. Raises ModelError."""
    return decoder_blocks(unwrapped(bare(model)))


def decoder_in(model: Any) -> nn.Module:
    """The module that runs the blocks. Raises ModelError."""
    inner = unwrapped(bare(model))
    return decoder_of(inner, decoder_blocks(inner))


def bare(model: Any) -> Any:
    """The model inside the wrappers of distributed training."""
    return bare(model.module) if isinstance(model, DataParallel | DistributedDataParallel) else model


class ChangedPasses:
    """Changes the output of `layers` (1-based) in every pass in training mode, until `close`.

    Passes in evaluation mode stay as they are. Raises SteeringError in a pass in which a layer did not run.
    """

    def __init__(self, model: Any, layers: Sequence[int], change: Change) -> None:
        self.blocks, self.counts = blocks_of(model), Counts()
        self._layers, self._change = frozenset(layers), change
        self._seen: set[int] | None = None
        decoder = decoder_in(model)
        self._handles = [
            decoder.register_forward_pre_hook(self._begin),
            decoder.register_forward_hook(self._end),
            # in front: what others read of a block is what the next one gets
            *(
                self.blocks[layer - 1].register_forward_hook(self._hook(layer), prepend=True)
                for layer in layers
            ),
        ]

    def close(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()

    @property
    def recomputing(self) -> bool:
        """Whether a block that runs now is run again, for a pass that has ended."""
        return self._seen is None

    def _begin(self, decoder: nn.Module, arguments: Any) -> None:
        if decoder.training:
            self._seen = set()

    def _end(self, decoder: nn.Module, arguments: Any, output: Any) -> None:
        if not decoder.training:
            return
        seen, self._seen = self._seen, None
        if not torch.is_grad_enabled():
            return
        if missing := self._layers - (seen or set()):
            raise SteeringError(f"layer {min(missing)} did not run in a training pass, so it was not changed")
        self.counts.passes += 1

    def _hook(self, layer: int) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(block: nn.Module, arguments: Any, output: Any) -> Any:
            if not block.training:
                return None
            self._count(layer)
            changed = self._change(layer, hidden_of(output))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def _count(self, layer: int) -> None:
        if self._seen is None:
            self.counts.recomputed += 1
        else:
            self._seen.add(layer)
