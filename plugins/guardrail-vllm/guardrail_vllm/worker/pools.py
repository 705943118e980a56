"""The states that probes read, of prompts that vLLM computes in pieces: last tokens, and means over turns.

A mean is taken over sums in float32, which are kept with the request from piece to piece. Each of its tokens
has to be seen: such requests read nothing from the prefix cache, and what is missing stops them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from guardrail.types import Position
from guardrail_vllm.worker.blocks import Stream, columns
from guardrail_vllm.worker.rows import Row

GAP = "tokens {} to {} of the prompt were not computed where a policy reads their mean"


class Pools:
    """`rows` hold pieces of prompts of one plan; `ending` are those of them in which a prompt ends.

    `means`: the positions of means that are read at each layer.
    """

    def __init__(
        self, rows: Sequence[Row], ending: Sequence[Row], means: Mapping[int, Sequence[Position]]
    ) -> None:
        self._means = means
        self._last: Tensor | None = None
        self._stream: Stream | None = None
        self._layer = 0
        positions = {position for found in means.values() for position in found}
        for row in rows if positions else ():
            _follow_on(row, positions)
        # an error of one request is no other's
        self._rows = [row for row in rows if row.request.error is None]
        self.ending = [row for row in ending if row.request.error is None]

    def add(self, layer: int, stream: Stream) -> None:
        """Take in what a layer returned in this pass."""
        self._layer, self._stream = layer, stream
        for position in self._means.get(layer, ()):
            for row in self._rows:
                self._add(row, position, stream)

    def _add(self, row: Row, position: Position, stream: Stream) -> None:
        sums, key = row.request.sums, (self._layer, position)
        for start, end in row.request.spans(position):
            first, last = max(start, row.first), min(end, row.first + row.tokens)
            if first < last:
                found = stream.between(row.column(first), row.column(last)).sum(0, dtype=torch.float32)
                sums[key] = sums[key] + found if key in sums else found

    def at(self, position: Position, hidden: Tensor) -> Tensor:
        """States [prompts that end, d_model] of what `add` took in. Zeros if there is nothing to read."""
        assert self._stream is not None
        if position == "last":
            if self._last is None:
                self._last = columns([row.last for row in self.ending], hidden)
            return self._stream.at(self._last)
        return torch.stack([self._mean(row, position, hidden) for row in self.ending])

    def _mean(self, row: Row, position: Position, hidden: Tensor) -> Tensor:
        tokens = sum(end - start for start, end in row.request.spans(position))
        if not tokens:
            return hidden.new_zeros(hidden.shape[-1], dtype=torch.float32)
        return row.request.sums[self._layer, position] / tokens

    def nothing(self, position: Position) -> list[bool]:
        """[prompts that end]: whether a prompt has nothing to read."""
        return [position != "last" and not row.request.spans(position) for row in self.ending]


def _follow_on(row: Row, positions: Iterable[Position]) -> None:
    """Begin anew with the first token, after a preemption too. A request with unseen tokens fails."""
    request = row.request
    if row.first == 0:
        request.sums.clear()
        request.seen = 0
    if row.first != request.seen:
        request.fail(GAP.format(request.seen, row.first - 1))
    for position in positions:
        if not request.knows(position):
            request.fail(f"a policy reads `{position}`, and its tokens are not known in this prompt")
    request.seen = row.first + row.tokens
