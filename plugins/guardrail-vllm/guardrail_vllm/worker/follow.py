"""Following one reply: its newest token is read at each layer, and steered if a gate has opened."""

from __future__ import annotations

from functools import partial

from guardrail.engines.transformers.monitor import ReplyMonitor
from guardrail.types import Steering
from guardrail_vllm.worker.blocks import Stream, columns
from guardrail_vllm.worker.rows import Row
from guardrail_vllm.worker.steering import Changes


class Follow:
    """One followed row of a pass.

    Tokens that are computed again, after a preemption, are steered as they were and not read again.
    """

    def __init__(self, row: Row, monitor: ReplyMonitor, changes: Changes) -> None:
        self.row, self.monitor, self._changes = row, monitor, changes
        # the k-th token of the reply, from 1, is at position length + k - 1
        self._new = row.start + row.request.length + monitor.tokens - row.first
        self.layers = set(monitor.layers)
        self._again = self._replayed()

    @property
    def newest(self) -> bool:
        """Whether a token that was not read yet is in the pass."""
        return self.row.start <= self._new < self.row.end

    def read(self, layer: int, stream: Stream) -> None:
        """Read the newest token."""
        if self.newest and layer in self.layers:
            self.monitor.read(layer, stream.at(columns([self._new], stream.hidden))[None])

    def steer(self, layer: int, stream: Stream) -> None:
        """Change what has to be changed."""
        if layer not in self.layers:
            return
        for steering, fired in self._again:
            if layer in steering.layers:
                self._steer_again(steering, fired, layer, stream)
        if self.newest:
            stream.change(columns([self._new], stream.hidden), partial(self.monitor.steer, layer))

    def _replayed(self) -> list[tuple[Steering, int]]:
        """What steers, and from which token on, if tokens are computed again that were read before."""
        before = self._new - self.row.start
        return self.monitor.opened(0) if before > 0 and self.monitor.tokens else []

    def _steer_again(self, steering: Steering, fired: int, layer: int, stream: Stream) -> None:
        # below the last layer read, the token at which it fired had gone by
        first = fired + (layer < self.monitor.reader.layers[-1])
        start = max(self.row.start, self._new - (self.monitor.tokens + 1 - first))
        indices = range(start, min(self._new, self.row.end))
        if indices:
            change = self._changes.of(steering, layer, stream.hidden)
            stream.change(columns(indices, stream.hidden), lambda states: change.apply(states, None))
