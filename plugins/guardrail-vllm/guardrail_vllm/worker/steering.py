"""Steering in one forward pass over many requests: each change once, for the tokens of all that get it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from guardrail.engines.transformers.steering import Change
from guardrail.types import Steering
from guardrail_vllm.worker.blocks import Stream, columns
from guardrail_vllm.worker.rows import Row


class Changes:
    """The tensors of the steering of one plan, kept from pass to pass."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], tuple[Steering, Change]] = {}

    def of(self, steering: Steering, layer: int, like: Tensor) -> Change:
        """One policy's steering at a layer."""
        key = id(steering), layer
        if key not in self._made or self._made[key][0] is not steering:
            self._made[key] = steering, Change(steering, layer, None, like)
        return self._made[key][1]


class PassSteering:
    """The rows that are steered in a pass, policy by policy, in the order in which the plan has them."""

    def __init__(self, changes: Changes, order: Mapping[str, int]) -> None:
        self._changes, self._order = changes, order
        self._groups: dict[str, tuple[Steering, list[int]]] = {}
        self._at: dict[str, Tensor] = {}
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Steer a row of a decided request, if it has tokens that are."""
        if not row.steered:
            return
        decision = row.request.decision
        for steering in decision.steering if decision is not None else ():
            self._groups.setdefault(steering.policy, (steering, []))[1].extend(row.steered)
        self.rows.append(row)
        self._at.clear()

    @property
    def layers(self) -> set[int]:
        """The layers that are steered."""
        return {layer for steering, _ in self._groups.values() for layer in steering.layers}

    def apply(self, layer: int, stream: Stream) -> None:
        """Change what a layer returned."""
        for policy in sorted(self._groups, key=lambda one: self._order.get(one, 0)):
            steering, indices = self._groups[policy]
            if layer not in steering.layers:
                continue
            if policy not in self._at:
                self._at[policy] = columns(indices, stream.hidden)
            change = self._changes.of(steering, layer, stream.hidden)
            stream.change(self._at[policy], lambda states, change=change: change.apply(states, None))
