"""The states that probes read, in a pass that holds pieces of many prompts one behind another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guardrail.engines.transformers.continuous.rows import Row
from guardrail.types import Position


class PackedPools:
    """Of hidden [1, all tokens, d_model] at one layer: the states of the prompts that end in this pass.

    `rows` holds pieces of prompts of one plan. Means are taken over sums, because a prompt may come in
    several pieces; `add` has to see each of them.
    """

    def __init__(self, rows: Sequence[Row], positions: Sequence[Position]) -> None:
        self._all = rows
        self.ending = [row for row in rows if row.place is not None]
        """The rows whose prompt ends in this pass."""
        self._means: list[Position] = [position for position in positions if position != "last"]
        self._columns = [row.end - 1 for row in self.ending]
        self._index: dict[torch.device, Tensor] = {}
        self.layer = 0

    def add(self, layer: int, hidden: Tensor) -> None:
        """Take in this layer of the pass."""
        self.layer = layer
        for position in self._means:
            for row in self._all:
                self._add(row, position, hidden)

    def _add(self, row: Row, position: Position, hidden: Tensor) -> None:
        sums = row.request.sums
        key: tuple[int, Position] = (self.layer, position)
        for start, end in row.request.prompt.spans[position]:
            first, last = max(start, row.first), min(end, row.first + row.tokens)
            if first < last:
                shift = row.start - row.first
                found = hidden[0, first + shift : last + shift].sum(0, dtype=torch.float32)
                sums[key] = sums[key] + found if key in sums else found

    def at(self, position: Position, hidden: Tensor) -> Tensor:
        """States [prompts that end, d_model]. Zeros if there is nothing to read."""
        if position == "last":
            if hidden.device not in self._index:
                self._index[hidden.device] = torch.tensor(self._columns, device=hidden.device)
            return hidden[0, self._index[hidden.device]]
        return torch.stack([self._mean(row, position, hidden) for row in self.ending])

    def _mean(self, row: Row, position: Position, hidden: Tensor) -> Tensor:
        tokens = sum(end - start for start, end in row.request.prompt.spans[position])
        if not tokens:
            return hidden.new_zeros(hidden.shape[-1], dtype=torch.float32)
        return row.request.sums[self.layer, position] / tokens

    def nothing(self, position: Position) -> list[bool]:
        """[prompts that end]: whether a prompt has nothing to read."""
        if position == "last":
            return [False] * len(self.ending)
        return [not row.request.prompt.spans[position] for row in self.ending]
