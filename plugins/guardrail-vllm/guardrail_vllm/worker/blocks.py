"""The decoder layers of a vLLM model, and the residual stream behind each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from guardrail.errors import ModelError

LISTS = ("layers", "h", "blocks", "block")


def decoder_layers(model: nn.Module, count: int) -> nn.ModuleList:
    """The layers, in order. Raises ModelError if there is not exactly one list of so many."""
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and name.split(".")[-1] in LISTS
    }
    found = [module for name, module in lists.items() if "vision" not in name and "visual" not in name]
    if len(found) != 1:
        raise ModelError(
            f"{type(model).__name__} cannot be guarded in vLLM: {len(found)} lists of {count} decoder layers "
            "were found"
        )
    return found[0]


class Stream:
    """What a decoder layer returned in one pass: [tokens, d_model], or that and a residual to be added.

    vLLM adds the residual in the next layer's norm, so that the residual stream itself is nowhere.
    """

    def __init__(self, output: Any) -> None:
        self.hidden, self.residual = _parts(output)

    def at(self, columns: Tensor) -> Tensor:
        """The states [n, d_model] of these tokens, in the dtype of the model."""
        states = self.hidden[columns]
        return states if self.residual is None else states + self.residual[columns]

    def between(self, start: int, end: int) -> Tensor:
        """The states [n, d_model] of a run of tokens."""
        states = self.hidden[start:end]
        return states if self.residual is None else states + self.residual[start:end]

    def change(self, columns: Tensor, apply: Callable[[Tensor], None]) -> None:
        """Let `apply` change the states [1, n, d_model] of these tokens in place."""
        before = self.at(columns)
        states = before.clone()
        apply(states[None])
        # what was not changed has to stay the same to the bit
        self.hidden.index_add_(0, columns, states - before)


def _parts(output: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(output, Tensor):
        return output, None
    if isinstance(output, tuple) and len(output) == 2:
        hidden, residual = output
        if isinstance(hidden, Tensor) and (residual is None or isinstance(residual, Tensor)):
            return hidden, residual
    raise ModelError(f"a decoder layer returned {_described(output)}, not hidden states and a residual")


def _described(output: Any) -> str:
    if isinstance(output, tuple):
        return f"({', '.join(type(one).__name__ for one in output)})"
    return type(output).__name__


def columns(indices: Sequence[int], like: Tensor) -> Tensor:
    """Token indices on the device of a tensor."""
    return torch.tensor(indices, dtype=torch.long, device=like.device)
