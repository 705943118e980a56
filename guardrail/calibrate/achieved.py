"""Measures how often thresholds fire on held-out benign prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.projections import Projections
from guardrail.calibration.benign import Benign
from guardrail.calibration.evidence import Achieved
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.statistics.conformal import conformal_rank, observed_fpr
from guardrail.vectors.values import TraitVectors

Fired = NDArray[np.bool_]


def trait_rates(
    vectors: TraitVectors, kept: Projections, held_out: Projections, fpr: float
) -> tuple[Achieved, ...]:
    """Every trait at its chosen layer, `fires: above`. Raises CalibrationError for too few prompts."""
    found: list[Achieved] = []
    for trait, vector in vectors.items():
        if vector.layer is None:
            continue
        values = kept.of(trait, vector.layer)
        fired = held_out.of(trait, vector.layer) >= Benign.of(values).conformal(fpr)
        found += _achieved("trait", trait, fpr, fired, tied_at(values, fpr))
    return tuple(found)


def plan_rates(
    plan: Plan, kept: Projections, held_out: Projections, set_fpr: float | None
) -> tuple[Achieved, ...]:
    """Every policy, and all enforced ones together. Leaves out policies with scorers: nothing scored them."""
    found: list[Achieved] = []
    together: list[Fired] = []
    for rule in plan.rules:
        if any(c.layer is None for c in rule.conditions):
            continue
        fired = rule_fired(rule, held_out)
        together += [fired] if rule.mode == "enforce" else []
        only = rule.conditions[0] if len(rule.conditions) == 1 else None
        fpr = only.fpr if only else None
        tied = tied_at(_strengths(only, kept), fpr) if only and fpr else 0
        found += _achieved("policy", rule.id, fpr, fired, tied)
    if together:
        found += _achieved("set", "", set_fpr, np.any(together, axis=0), 0)
    return tuple(found)


def rule_fired(rule: Rule, projections: Projections) -> Fired:
    """[n]: whether the policy fires on each prompt."""
    held = [_holds(condition, projections) for condition in rule.conditions]
    return np.all(held, axis=0) if rule.require_all else np.any(held, axis=0)


def _holds(condition: CompiledCondition, projections: Projections) -> Fired:
    values = projections.of(condition.trait, condition.layer or 0)
    return values >= condition.raw if condition.fires == "above" else values <= condition.raw


def _strengths(condition: CompiledCondition, projections: Projections) -> NDArray[np.floating]:
    values = projections.of(condition.trait, condition.layer or 0)
    return values if condition.fires == "above" else -values


def tied_at(strengths: NDArray[np.floating], fpr: float) -> int:
    """How many prompts share the score just short of the threshold; 0 if only one prompt has it."""
    ordered = np.sort(strengths)
    same = int(np.sum(ordered == ordered[conformal_rank(len(ordered), fpr) - 1]))
    return same if same > 1 else 0


def _achieved(kind: str, name: str, fpr: float | None, fired: Fired, tied: int) -> Sequence[Achieved]:
    if not len(fired):
        return ()
    count = int(fired.sum())
    _, low, high = observed_fpr(count, len(fired))
    return (
        Achieved(kind=kind, name=name, fpr=fpr, n=len(fired), fired=count, low=low, high=high, tied=tied),  # type: ignore[arg-type]
    )
