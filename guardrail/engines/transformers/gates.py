"""Steering that opens on the device, when a rule fires there. No host is asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guardrail.engines.transformers.steering import Change
from guardrail.types import Steering


class Gates:
    """`steering`: pairs of a column of what `open` is told, and what that column opens."""

    def __init__(self, steering: Sequence[tuple[int, Steering]]) -> None:
        self._steering = steering
        self.layers = tuple(sorted({layer for _, change in steering for layer in change.layers}))
        """The layers that are steered once something has fired, ascending."""
        self.passes = 0
        """Forward passes in which every layer was seen since something could be open."""
        self._open: Tensor | None = None
        self._changes: dict[int, list[tuple[int, Change]]] = {}
        self._count: Tensor | None = None

    def open(self, fired: Tensor) -> None:
        """From now on, steer the rows in which something has fired, [rows, columns] bool."""
        self._open = fired.float()

    def apply(self, layer: int, hidden: Tensor, weight: Tensor | None = None) -> None:
        """Change hidden [rows, positions, d_model] in place where gates are open and `weight` is 1."""
        if self._open is None or layer not in self.layers:
            return
        if layer not in self._changes:
            self._changes[layer] = [
                (column, Change(change, layer, None, hidden))
                for column, change in self._steering
                if layer in change.layers
            ]
        for column, change in self._changes[layer]:
            gate = self._open[:, column, None].to(hidden.device)
            change.apply(hidden, gate if weight is None else gate * weight)
        if layer == self.layers[-1]:
            self.passes += 1
            opened = torch.stack([self._open[:, column] for column, _ in self._steering]).amax(0)
            self._count = opened if self._count is None else self._count + opened

    def counts(self, rows: int) -> list[int]:
        """Forward passes in which each row was steered."""
        return [0] * rows if self._count is None else [int(n) for n in self._count.tolist()]
