"""Alarms that fire when the mean projections of a conversation's replies drift. Pure maths.

z is a reply's mean projection in benign standard deviations. CUSUM (Page, Biometrika 1954):
S_t = max(0, S_(t-1) + z_t - k), alarm at h. EWMA (Roberts, Technometrics 1959):
E_t = (1 - w) E_(t-1) + w z_t, in units of its standard deviation sqrt(w / (2 - w) (1 - (1 - w)^(2t))).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DriftState:
    """The state of an alarm after `turns` replies; `level` is S or E."""

    level: float = 0.0
    turns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One alarm. `reading` is the index of its probe in the plan's `reply_probes`.

    The probe gives z, negated if the policy fires below. `k` belongs to `cusum`, `weight` to `ewma`.
    """

    statistic: Literal["cusum", "ewma"]
    reading: int
    k: float = 0.5
    weight: float = 0.2

    def step(self, state: DriftState, z: float) -> DriftState:
        """The state after one more reply. NaN stays NaN."""
        if self.statistic == "cusum":
            level = state.level + z - self.k
            return DriftState(level if level > 0 or math.isnan(level) else 0.0, state.turns + 1)
        level = state.level + self.weight * (z - state.level)
        return DriftState(level, state.turns + 1)

    def value(self, state: DriftState) -> float:
        """The value to compare with the alarm's threshold; 0 before the first reply."""
        if self.statistic == "cusum" or state.turns == 0:
            return state.level
        w = self.weight
        return state.level / math.sqrt(w / (2 - w) * (1 - (1 - w) ** (2 * state.turns)))

    def run(self, z: Iterable[float]) -> float:
        """The value after all of these replies."""
        state = DriftState()
        for value in z:
            state = self.step(state, value)
        return self.value(state)
