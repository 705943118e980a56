"""Tensor arithmetic of the guard: readings of one batch, and steering of its rows. Knows no model.

add: h += d (Chen et al. 2025, 3.2). ablate: h -= <h, u> u (Arditi et al. 2024). cap: <h, u> is limited to a
ceiling, or to a floor (the Assistant Axis, 2026). Projections are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guardrail.plan import Plan
from guardrail.types import Decision, Steering


class Reader:
    """The plan's probes as matrices, kept on the devices that have asked for them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._matrices: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
        self.indices = {layer: plan.matrix(layer)[0] for layer in {probe.layer for probe in plan.probes}}

    def scores(self, layer: int, states: Tensor) -> Tensor:
        """[rows, probes of this layer] float32, for states [rows, d_model]: one matrix product."""
        key = (layer, states.device)
        if key not in self._matrices:
            _, weights, offsets = self.plan.matrix(layer)
            self._matrices[key] = (
                torch.from_numpy(weights).to(states.device),
                torch.from_numpy(offsets).to(states.device),
            )
        weights, offsets = self._matrices[key]
        return states.float() @ weights.T + offsets


class BatchSteering:
    """What the decisions of a batch change, row by row. `expand` is the number of rows for each decision."""

    def __init__(self, decisions: Sequence[Decision], expand: int = 1) -> None:
        self.counts = [0] * len(decisions)
        """Forward passes in which each row was steered."""
        self._rows: dict[str, tuple[Steering, list[bool]]] = {}
        for i, decision in enumerate(decisions):
            for steering in decision.steering:
                self._rows.setdefault(steering.policy, (steering, [False] * len(decisions)))[1][i] = True
        self.layers = tuple(
            sorted({layer for steering, _ in self._rows.values() for layer in steering.layers})
        )
        """The layers that are steered in some row, ascending."""
        self._steered = [i for i, decision in enumerate(decisions) if decision.steering]
        self._masks = {policy: _expanded(rows, expand) for policy, (_, rows) in self._rows.items()}
        self._cache: dict[tuple[str, int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def apply(self, layer: int, hidden: Tensor, weight: Tensor | None = None) -> None:
        """Change hidden [rows, positions, d_model] in place, everywhere or where `weight` is 1."""
        for policy, (steering, _) in self._rows.items():
            if layer in steering.layers:
                direction, rows = self._tensors(policy, steering, layer, hidden)
                where = rows if weight is None else rows * weight.to(hidden.dtype)[..., None]
                _change(hidden, steering, steering.layers.index(layer), direction, where)
        if self._rows and layer == self.layers[-1]:
            self._count()

    def _count(self) -> None:
        for i in self._steered:
            self.counts[i] += 1

    def _tensors(self, policy: str, steering: Steering, layer: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
        key = (policy, layer, hidden.device, hidden.dtype)
        if key not in self._cache:
            direction = torch.from_numpy(steering.directions[steering.layers.index(layer)])
            if steering.operator == "add":
                direction = direction.to(hidden.dtype)
            mask = self._masks[policy].to(hidden.device, hidden.dtype)
            self._cache[key] = (direction.to(hidden.device), mask)
        return self._cache[key]


def _expanded(rows: Sequence[bool], expand: int) -> Tensor:
    return torch.tensor(rows).repeat_interleave(expand)[:, None, None]


def _change(hidden: Tensor, steering: Steering, i: int, direction: Tensor, where: Tensor) -> None:
    if steering.operator == "add":
        hidden += where * direction
        return
    projection = hidden.float() @ direction
    if steering.operator == "cap":
        beyond = projection - steering.limits[i]
        projection = beyond.clamp(max=0) if steering.floor else beyond.clamp(min=0)
    hidden -= (where.float() * projection[..., None] * direction).to(hidden.dtype)


def last_positions(mask: Tensor | None, columns: int) -> Tensor | None:
    """[rows]: the column of each row's last token; None where that is the last column in every row."""
    if mask is None:
        return None
    window = mask[:, -columns:].to(torch.int64)
    if bool(window[:, -1].all()):
        return None
    return columns - 1 - window.flip(1).argmax(1)


def at_last(hidden: Tensor, last: Tensor | None) -> Tensor:
    """States [rows, d_model] of the last prompt tokens of hidden [rows, positions, d_model]."""
    if last is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), last.to(hidden.device)]
