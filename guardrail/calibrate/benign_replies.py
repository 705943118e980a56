"""Calibrates policies about replies on the unguarded model's replies to benign prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.projections import Column
from guardrail.calibration.benign import BenignReplies
from guardrail.calibration.running import Statistic
from guardrail.policy.model import PolicySet

STATISTICS: tuple[tuple[Statistic, int], ...] = (("mean", 16), ("max", 16), ("ema", 16))
"""The statistics to calibrate unless policies ask for more: each with its default window."""


def reply_statistics(
    replies: Sequence[NDArray[np.float32]], columns: Sequence[Column], policies: PolicySet | None
) -> Mapping[str, Mapping[int, BenignReplies]]:
    """The statistics of replies [tokens, columns]. Empty below 2 replies."""
    table: dict[str, dict[int, BenignReplies]] = {}
    for column, (trait, layer) in enumerate(columns if len(replies) >= 2 else ()):
        values = [reply[:, column] for reply in replies]
        table.setdefault(trait, {})[layer] = BenignReplies.of(values, _statistics(policies))
    return table


def followed_layers(policies: PolicySet | None) -> dict[str, set[int]]:
    """The layers at which policies follow replies, by trait."""
    layers: dict[str, set[int]] = {}
    for policy in policies.policies if policies else ():
        for condition in policy.conditions if policy.stage == "response" else ():
            if isinstance(condition.layer, int):
                layers.setdefault(condition.trait, set()).add(condition.layer)
    return layers


def _statistics(policies: PolicySet | None) -> list[tuple[Statistic, int]]:
    monitors = [p.monitor for p in policies.policies if p.monitor] if policies else []
    return list(dict.fromkeys([*STATISTICS, *((m.statistic, m.window) for m in monitors)]))
