"""Which rules that steer fire on a prompt, found on the device: `evaluate` for plans that only steer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition


class Firing:
    """The conditions of the enforced rules of a plan, as tensors. `places`: the column of each reading.

    A score at its threshold fires, and one that is not finite does not: the host finds it and applies
    `on_error`. The result has to be exactly the host's: a difference is an error (`Gated.check`).
    """

    def __init__(self, plan: Plan, places: Mapping[int, int], device: torch.device) -> None:
        self.rules = [rule for rule in plan.rules if rule.mode == "enforce"]
        conditions = [c for rule in self.rules for c in rule.conditions]
        # with the signs of "below" turned, one comparison serves all conditions
        signs = [1.0 if c.fires == "above" else -1.0 for c in conditions]
        thresholds = [_rounded_up(sign * c.threshold) for sign, c in zip(signs, conditions, strict=True)]
        self._columns = torch.tensor([_place(c, places) for c in conditions], device=device)
        self._signs = torch.tensor(signs, dtype=torch.float32, device=device)
        self._thresholds = torch.tensor(thresholds, dtype=torch.float32, device=device)
        self._index = torch.tensor(self._padded(), device=device)
        self._all = torch.tensor([rule.require_all for rule in self.rules], device=device)

    def __call__(self, scores: Tensor) -> Tensor:
        """[prompts, columns] -> [prompts, rules] bool"""
        read = scores[:, self._columns]
        held = (read * self._signs >= self._thresholds) & read.isfinite()
        conditions = held[:, self._index]
        return torch.where(self._all, conditions.all(2), conditions.any(2))

    def _padded(self) -> list[list[int]]:
        """For each rule its conditions; a rule with fewer than others repeats its first one."""
        longest = max(len(rule.conditions) for rule in self.rules)
        # a tensor needs rows of one length, and a repeated condition changes neither "all" nor "any"
        rows, start = list[list[int]](), 0
        for rule in self.rules:
            own = list(range(start, start + len(rule.conditions)))
            rows.append(own + own[:1] * (longest - len(own)))
            start += len(own)
        return rows


def _rounded_up(value: float) -> float:
    """The least float32 that is not below a float64."""
    # scores are float32 and the host compares in float64; no float32 lies between the value and the result,
    # so both agree. Rounded down, a score just below the threshold would fire on the device alone
    nearest = np.float32(value)
    return float(nearest if float(nearest) >= value else np.nextafter(nearest, np.float32(np.inf)))


def _place(condition: CompiledCondition, places: Mapping[int, int]) -> int:
    assert condition.reading is not None
    return places[condition.reading]
