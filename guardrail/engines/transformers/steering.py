"""Tensor arithmetic of steering: the rows of one batch. Uses no model.

add: h += d (Chen et al. 2025, 3.2). ablate: h -= <h, u> u (Arditi et al. 2024). cap: <h, u> is limited to a
ceiling, or to a floor (the Assistant Axis, 2026). Projections are computed in float32.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy

import torch
from torch import Tensor, nn

from guardrail.engines.transformers.executor import layer_name, layer_of
from guardrail.engines.transformers.hooks import Hooked
from guardrail.errors import SteeringError
from guardrail.types import Decision, Steering


class BatchSteering:
    """What the decisions of a batch change, row by row. `expand` is the number of rows for each decision.

    `order`: the places of policies in the plan. Every row is steered in this order, whatever fires in others.
    """

    def __init__(
        self, decisions: Sequence[Decision], expand: int = 1, order: Mapping[str, int] | None = None
    ) -> None:
        self.counts = [0] * len(decisions)
        """Forward passes in which each row was steered."""
        rows: dict[str, tuple[Steering, list[bool]]] = {}
        for i, decision in enumerate(decisions):
            for steering in decision.steering:
                rows.setdefault(steering.policy, (steering, [False] * len(decisions)))[1][i] = True
        policies = sorted(rows, key=lambda policy: (order or {}).get(policy, 0))
        self._wanted = [(rows[policy][0], _expanded(rows[policy][1], expand)) for policy in policies]
        self._changes: dict[int, list[Change]] = {}
        self._steered = [i for i, decision in enumerate(decisions) if decision.steering]
        self.layers = tuple(sorted({layer for steering, _ in self._wanted for layer in steering.layers}))
        """The layers that are steered in some row, ascending."""

    def onwards(self) -> BatchSteering:
        """The same steering for the passes that follow, with new counts."""
        found = copy(self)
        found.counts = [0] * len(self.counts)
        return found

    def apply(self, layer: int, hidden: Tensor, weight: Tensor | None = None) -> None:
        """Change hidden [rows, positions, d_model] in place, everywhere or where `weight` is 1."""
        if layer not in self._changes:
            self._changes[layer] = [
                Change(steering, layer, mask, hidden)
                for steering, mask in self._wanted
                if layer in steering.layers
            ]
        for change in self._changes[layer]:
            change.apply(hidden, weight)
        if layer == self.layers[-1]:
            self.count()

    def count(self) -> None:
        """One more forward pass was steered."""
        for i in self._steered:
            self.counts[i] += 1


def _expanded(rows: Sequence[bool], expand: int) -> Tensor | None:
    """[rows, 1], None for every row."""
    return None if all(rows) else torch.tensor(rows, device="cpu").repeat_interleave(expand)[:, None]


class Change:
    """One policy's steering at one layer, as tensors on the layer's device."""

    def __init__(self, steering: Steering, layer: int, rows: Tensor | None, like: Tensor) -> None:
        i = steering.layers.index(layer)
        self.operator, self.floor = steering.operator, steering.floor
        self.limit = steering.limits[i] if steering.limits else 0.0
        # without waiting, so that the device's queue stays full; memory is staged before the call returns
        direction = torch.from_numpy(steering.direction(i)).to(like.device, non_blocking=True)
        self.rows = None if rows is None else rows.to(like.device, torch.float32, non_blocking=True)
        self.direction = direction
        self.delta = (direction if self.rows is None else self.rows[..., None] * direction).to(like.dtype)

    def apply(self, hidden: Tensor, weight: Tensor | None) -> None:
        """Change hidden in place; weight [rows, positions] limits it to some positions."""
        if self.operator == "add":
            hidden += self.delta if weight is None else weight[..., None].to(hidden.dtype) * self.delta
            return
        amount = self._amount(hidden.float() @ self.direction)
        for mask in (self.rows, weight):
            amount = amount if mask is None else amount * mask
        hidden -= (amount[..., None] * self.direction).to(hidden.dtype)

    def _amount(self, projection: Tensor) -> Tensor:
        """How much of the direction is taken away, [rows, positions]."""
        if self.operator == "ablate":
            return projection
        beyond = projection - self.limit
        return beyond.clamp(max=0) if self.floor else beyond.clamp(min=0)


@contextmanager
def steered(blocks: nn.ModuleList, steering: Sequence[Steering]) -> Generator[None]:
    """Steers every forward pass inside, on the last prompt position and later ones, as the guard does.

    Prompts must be padded on the left. Raises SteeringError if nothing was steered.
    """
    if not steering:
        yield
        return
    apart = tuple(one.renamed(str(i)) for i, one in enumerate(steering))
    batch = BatchSteering([Decision(status="evaluated", action="steer", steering=apart)])

    def visit(name: str, hidden: Tensor) -> bool:
        batch.apply(layer_of(name), hidden[:, -1:])
        return False

    names = [layer_name(layer) for layer in batch.layers]
    with Hooked({layer_name(layer): blocks[layer - 1] for layer in batch.layers}).visited(names, visit):
        yield
    if batch.counts[0] == 0:
        raise SteeringError("steering was requested, but no forward pass was steered")
