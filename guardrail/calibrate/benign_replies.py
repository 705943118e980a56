"""Calibrates policies about replies on the unguarded model's replies to benign prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from guardrail.calibrate.projections import Spoken, followed, reply_projections
from guardrail.calibration.running import Statistic
from guardrail.calibration.values import BenignReplies
from guardrail.policy.model import PolicySet
from guardrail.vectors.values import TraitVectors

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject

STATISTICS: tuple[tuple[Statistic, int], ...] = (("mean", 16), ("max", 16), ("ema", 16))
"""The statistics to calibrate unless policies ask for more: each with its default window."""


def reply_statistics(
    subject: Subject, spoken: Sequence[Spoken], vectors: TraitVectors, policies: PolicySet | None
) -> Mapping[str, Mapping[int, BenignReplies]]:
    """For every trait at its own layer and every layer that policies follow. Empty below 2 replies."""
    directions = followed(vectors, _layers(policies))
    rows = reply_projections(subject, spoken, directions) if directions else []
    if directions is None or len(rows) < 2:
        return {}
    table: dict[str, dict[int, BenignReplies]] = {}
    for column, (trait, layer) in enumerate(directions.columns):
        replies = [row[:, column] for row in rows]
        table.setdefault(trait, {})[layer] = BenignReplies.of(replies, _statistics(policies))
    return table


def _layers(policies: PolicySet | None) -> dict[str, set[int]]:
    layers: dict[str, set[int]] = {}
    for policy in policies.policies if policies else ():
        for condition in policy.conditions if policy.stage == "response" else ():
            if isinstance(condition.layer, int):
                layers.setdefault(condition.trait, set()).add(condition.layer)
    return layers


def _statistics(policies: PolicySet | None) -> list[tuple[Statistic, int]]:
    monitors = [p.monitor for p in policies.policies if p.monitor] if policies else []
    return list(dict.fromkeys([*STATISTICS, *((m.statistic, m.window) for m in monitors)]))
