"""Steering of replies that opens on the device, when a rule fires there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guardrail.engines.intervene import Change
from guardrail.plan import Rule


class Gates:
    """Steering that opens on the device, for the rules that steer. No host is asked."""

    def __init__(self, rules: Sequence[tuple[int, Rule]]) -> None:
        self._rules = rules
        self.layers = tuple(sorted({n for _, rule in rules if rule.steering for n in rule.steering.layers}))
        self.enforced = torch.zeros(0, dtype=torch.bool)
        """[rows, response rules] bool"""
        self._open: Tensor | None = None
        self._changes: dict[int, list[tuple[int, Change]]] = {}
        self._count: Tensor | None = None

    def set(self, quiet: Tensor) -> None:
        """Open the gates of what has fired."""
        if self._rules:
            self._open = (~quiet & self.enforced).float()

    def apply(self, layer: int, hidden: Tensor) -> None:
        """Change hidden [rows, 1, d_model] in place where gates are open."""
        if self._open is None or layer not in self.layers:
            return
        if layer not in self._changes:
            self._changes[layer] = [
                (i, Change(rule.steering, layer, None, hidden))
                for i, rule in self._rules
                if rule.steering and layer in rule.steering.layers
            ]
        for i, change in self._changes[layer]:
            change.apply(hidden, self._open[:, i, None].to(hidden.device))
        if layer == self.layers[-1]:
            opened = self._open[:, [i for i, _ in self._rules]].amax(1)
            self._count = opened if self._count is None else self._count + opened

    def counts(self, rows: int) -> list[int]:
        """Forward passes in which each row was steered."""
        return [0] * rows if self._count is None else [int(n) for n in self._count.tolist()]
