"""Alarms over the replies of a conversation: how far their mean projections have drifted. Pure maths.

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
    """Where an alarm stands after `turns` replies; `level` is S or E."""

    level: float = 0.0
    turns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One alarm. `reading` is its probe's index among the plan's `reply_probes`.

    The probe gives z, with the sign turned for a policy that fires below. `k` is for `cusum`, `weight` for
    `ewma`.
    """

    statistic: Literal["cusum", "ewma"]
    reading: int
    k: float = 0.5
    weight: float = 0.2

    def step(self, state: DriftState, z: float) -> DriftState:
        """The state after one more reply; what is not a number stays one that is not."""
        if self.statistic == "cusum":
            level = state.level + z - self.k
            return DriftState(level if level > 0 or math.isnan(level) else 0.0, state.turns + 1)
        level = state.level + self.weight * (z - state.level)
        return DriftState(level, state.turns + 1)

    def value(self, state: DriftState) -> float:
        """What the alarm's threshold is compared with; 0 before the first reply."""
        if self.statistic == "cusum" or state.turns == 0:
            return state.level
        w = self.weight
        return state.level / math.sqrt(w / (2 - w) * (1 - (1 - w) ** (2 * state.turns)))

    def run(self, z: Iterable[float]) -> float:
        """The value after all these replies."""
        state = DriftState()
        for value in z:
            state = self.step(state, value)
        return self.value(state)
