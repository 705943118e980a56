"""Measures how often thresholds fire on benign prompts: held-out ones of the sample, and those of slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.projections import Projections
from guardrail.calibration.evidence import Achieved
from guardrail.calibration.slices import BENIGN
from guardrail.calibration.values import Calibration
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.statistics.conformal import conformal_rank, observed_fpr
from guardrail.vectors.values import TraitVectors

Fired: TypeAlias = NDArray[np.bool_]
Kept: TypeAlias = Mapping[str | None, Projections]
"""The prompts behind the thresholds: of the benign sample under None, of slices under their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What fires on prompts: a trait's threshold, a policy, or the set of all enforced policies.

    `conditions` are what it compares, of the set none. `deciding`: the populations that set its thresholds,
    the benign sample as `benign`; empty for scores. `tied`: how many of their prompts share the score just
    short of the threshold.
    """

    kind: Literal["trait", "policy", "set"]
    name: str
    fpr: float | None
    fired: Callable[[Projections], Fired] = field(repr=False)
    conditions: tuple[CompiledCondition, ...] = field(default=(), repr=False)
    deciding: tuple[str, ...] = ()
    tied: int = 0


def trait_triggers(vectors: TraitVectors, calibration: Calibration, kept: Kept, fpr: float) -> list[Trigger]:
    """Every trait at its chosen layer, `fires: above`. Raises CalibrationError for too few prompts."""
    conditions = [
        _at_rate(trait, vector.layer, calibration, fpr)
        for trait, vector in vectors.items()
        if vector.layer is not None
    ]
    return [
        Trigger(
            kind="trait",
            name=condition.trait,
            fpr=fpr,
            fired=partial(_holds, condition),
            conditions=(condition,),
            deciding=_deciding([condition]),
            tied=_tied(condition, kept),
        )
        for condition in conditions
    ]


def plan_triggers(plan: Plan, kept: Kept, set_fpr: float | None) -> Iterator[Trigger]:
    """Every policy, and all enforced ones together. Leaves out policies with scorers: nothing scored them."""
    rules = [rule for rule in plan.rules if all(c.layer is not None for c in rule.conditions)]
    for rule in rules:
        only = rule.conditions[0] if len(rule.conditions) == 1 else None
        yield Trigger(
            kind="policy",
            name=rule.id,
            fpr=only.fpr if only else None,
            fired=partial(rule_fired, rule),
            conditions=rule.conditions,
            deciding=_deciding(rule.conditions),
            tied=_tied(only, kept) if only else 0,
        )
    if enforced := [rule for rule in rules if rule.mode == "enforce"]:
        yield Trigger(
            kind="set",
            name="",
            fpr=set_fpr,
            fired=partial(_any_fired, enforced),
        )


def achieved(triggers: Iterable[Trigger], projections: Projections) -> tuple[Achieved, ...]:
    """How often each fires on these prompts, with the Clopper-Pearson interval. Empty without prompts."""
    return tuple(_achieved(one, one.fired(projections)) for one in triggers if len(projections.values))


def _achieved(trigger: Trigger, fired: Fired) -> Achieved:
    count = int(fired.sum())
    _, low, high = observed_fpr(count, len(fired))
    return Achieved(
        kind=trigger.kind,
        name=trigger.name,
        fpr=trigger.fpr,
        n=len(fired),
        fired=count,
        low=low,
        high=high,
        tied=trigger.tied,
    )


def rule_fired(rule: Rule, projections: Projections) -> Fired:
    """[n]: whether the policy fires on each prompt."""
    held = [_holds(condition, projections) for condition in rule.conditions]
    return np.all(held, axis=0) if rule.require_all else np.any(held, axis=0)


def _any_fired(rules: Iterable[Rule], projections: Projections) -> Fired:
    return np.any([rule_fired(rule, projections) for rule in rules], axis=0)


def tied_at(strengths: NDArray[np.floating], fpr: float) -> int:
    """How many prompts share the score just short of the threshold; 0 if only one prompt has it."""
    ordered = np.sort(strengths)
    same = int(np.sum(ordered == ordered[conformal_rank(len(ordered), fpr) - 1]))
    return same if same > 1 else 0


def _holds(condition: CompiledCondition, projections: Projections) -> Fired:
    values = projections.of(condition.trait, condition.layer or 0)
    return values >= condition.raw if condition.fires == "above" else values <= condition.raw


def _at_rate(trait: str, layer: int, calibration: Calibration, fpr: float) -> CompiledCondition:
    known = calibration.populations(trait, layer)
    assert known is not None
    edge = known.conformal(fpr)
    score = known.benign.standardise(edge.projection)
    return CompiledCondition(
        trait=trait,
        layer=layer,
        reading=None,
        threshold=score,
        raw=edge.projection,
        fpr=fpr,
        slice=edge.slice,
    )


def _deciding(conditions: Iterable[CompiledCondition]) -> tuple[str, ...]:
    rates = [one for one in conditions if one.slice or one.fpr is not None]
    return tuple(dict.fromkeys(one.slice or BENIGN for one in rates))


def _tied(condition: CompiledCondition, kept: Kept) -> int:
    if condition.fpr is None:
        return 0
    return tied_at(kept[condition.slice].strengths(condition), condition.fpr)
