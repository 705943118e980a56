"""Steering that opens on the device when a rule fires there, without asking the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guardrail.engines.transformers.steering import Change
from guardrail.types import Steering


class Gates:
    """`steering`: pairs of a column of `open`'s argument and the steering that it opens."""

    def __init__(self, steering: Sequence[tuple[int, Steering]]) -> None:
        self._steering = steering
        self.layers = tuple(sorted({layer for _, change in steering for layer in change.layers}))
        """The layers that are steered once something has fired, ascending."""
        self.passes = 0
        """Forward passes in which every steered layer was visited since `open` was first called."""
        self._open: Tensor | None = None
        self._changes: dict[int, list[tuple[int, Change]]] = {}
        self._count: Tensor | None = None

    def open(self, fired: Tensor) -> None:
        """From now on, steer the rows in which something has fired, [rows, columns] bool."""
        # factors of 0 and 1: choosing rows by a mask would ask the device how many there are
        self._open = fired.float()

    def apply(self, layer: int, hidden: Tensor, weight: Tensor | None = None) -> None:
        """Change hidden [rows, positions, d_model] in place where gates are open and `weight` is 1."""
        if self._open is None or layer not in self.layers:
            return
        if layer not in self._changes:
            # not earlier: the hidden states tell the device and dtype of this layer
            self._changes[layer] = [
                (column, Change(change, layer, None, hidden))
                for column, change in self._steering
                if layer in change.layers
            ]
        for column, change in self._changes[layer]:
            gate = self._open[:, column, None].to(hidden.device)
            change.apply(hidden, gate if weight is None else gate * weight)
        if layer == self.layers[-1]:
            # counted on the device as well; only `counts` waits
            self.passes += 1
            opened = torch.stack([self._open[:, column] for column, _ in self._steering]).amax(0)
            self._count = opened if self._count is None else self._count + opened

    def counts(self, rows: int) -> list[int]:
        """Forward passes in which each row was steered."""
        return [0] * rows if self._count is None else [int(n) for n in self._count.tolist()]
