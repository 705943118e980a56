"""Proposes new thresholds for a policy set. Pure: no files, no model.

A threshold keeps its form: a score stays a score and a projection a projection, both at the target rate.
`{fpr: ...}` and `{percentile: ...}` adapt to a new calibration by themselves and stay unchanged, except that
a rate for the whole set replaces the `fpr` of every enforced policy. Thresholds of policies about replies
stay unchanged too, because a set's rate is about prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guardrail.calibrate.joint_rates import Bar, Member, joint_rates
from guardrail.calibration.benign import Tail
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError, Problem
from guardrail.files.yaml import KeyPath
from guardrail.policy.model import (
    Condition,
    FprThreshold,
    PercentileThreshold,
    Policy,
    PolicySet,
    RawThreshold,
    Threshold,
)
from guardrail.policy.plan import Plan
from guardrail.policy.rules import Rule
from guardrail.statistics.conformal import conformal_rank

if TYPE_CHECKING:
    from guardrail.calibrate.achieved import Kept
    from guardrail.calibrate.projections import Projections

DIGITS = 6
Thresholds = Mapping[KeyPath, Threshold]


def conditions(policies: PolicySet) -> Iterator[tuple[KeyPath, Policy, Condition]]:
    """(the path of its threshold, policy, condition) of policies about prompts, in the order of the file."""
    for i, policy in enumerate(policies.policies):
        if policy.stage == "response":
            continue
        for j, condition in enumerate(policy.conditions):
            kind = "all_of" if policy.all_of else "any_of"
            inside = () if policy.trait is not None else (kind, j)
            yield ("policies", i, *inside, "threshold"), policy, condition


def replaced(policies: PolicySet, thresholds: Thresholds) -> PolicySet:
    """The policies with these thresholds in place, by path."""
    data = policies.model_dump()
    for path, threshold in thresholds.items():
        holder: Any = data
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = threshold if isinstance(threshold, int | float) else threshold.model_dump()
    return PolicySet.model_validate(data)


def at_rate(
    policies: PolicySet, plan: Plan, calibration: Calibration, fpr: float
) -> dict[KeyPath, Threshold]:
    """New scores and projections at a target rate. Other forms and scorers' thresholds stay unchanged."""
    compiled = [c for rule in plan.rules for c in rule.conditions]
    found: dict[KeyPath, Threshold] = {}
    for (path, _, condition), c in zip(conditions(policies), compiled, strict=True):
        if c.layer is None or isinstance(condition.threshold, FprThreshold | PercentileThreshold):
            continue
        tail: Tail = "upper" if c.fires == "above" else "lower"
        known = calibration.populations(c.trait, c.layer)
        assert known is not None
        raw = known.conformal(fpr, tail).projection
        if isinstance(condition.threshold, RawThreshold):
            found[path] = RawThreshold(raw=rounded(raw, tail))
        else:
            found[path] = rounded(known.benign.standardise(raw), tail)
    return found


def rounded(value: float, tail: Tail) -> float:
    """Rounded to six significant digits, away from the benign prompts, so that rounding makes none fire."""
    if value == 0:
        return 0.0
    scale = 10.0 ** (DIGITS - 1 - math.floor(math.log10(abs(value))))
    turned = math.ceil(value * scale) if tail == "upper" else math.floor(value * scale)
    return float(f"{turned / scale:.{DIGITS}g}")


def not_rates(policies: PolicySet) -> list[Problem]:
    """Problems for enforced policies whose threshold is not a rate: they cannot share the set's rate."""
    return [
        Problem("a rate for the whole set needs {fpr: ...} here, to divide the rate in proportion", path)
        for path, policy, condition in conditions(policies)
        if policies.resolved(policy).mode == "enforce" and not isinstance(condition.threshold, FprThreshold)
    ]


def unsupported(policies: PolicySet, n: int, about: str = "") -> list[Problem]:
    """Problems for the rates that n benign prompts cannot support; each message begins with `about`."""
    found: list[Problem] = []
    for path, _, condition in conditions(policies):
        try:
            if isinstance(condition.threshold, FprThreshold):
                conformal_rank(n, condition.threshold.fpr)
        except CalibrationError as error:
            found.append(Problem(f"{about}{error}", path))
    return found


def without_rates(policies: PolicySet) -> PolicySet:
    """The same policies with thresholds that need no calibration, to find layers and probes."""
    middle = PercentileThreshold(percentile=50)
    rates = {p: middle for p, _, c in conditions(policies) if isinstance(c.threshold, FprThreshold)}
    return replaced(policies, rates)


def for_set(
    policies: PolicySet, rules: Sequence[Rule], kept: Kept, target: float
) -> dict[KeyPath, Threshold]:
    """Rates for all enforced policies, in the proportions of the file. Raises CalibrationError.

    The set keeps the target in every population of `kept`: each rate is the lowest that one of them needs.
    """
    enforced = [rule for rule in rules if rule.mode == "enforce"]
    if not enforced:
        raise CalibrationError("no policy is enforced, so a rate for the whole set has no effect")
    rates = [_set_rates(policies, enforced, name, found, target) for name, found in kept.items()]
    return {path: FprThreshold(fpr=min(own[path] for own in rates)) for path in rates[0]}


def _shares(members: Sequence[Member], target: float, slice: str | None) -> list[tuple[float, ...]]:
    try:
        return joint_rates(members, target)
    except CalibrationError as error:
        raise CalibrationError(f"slice `{slice}`: {error}" if slice else str(error)) from error


def _set_rates(
    policies: PolicySet, rules: Sequence[Rule], slice: str | None, kept: Projections, target: float
) -> dict[KeyPath, float]:
    """Rates with which the set keeps the target in one population, by the paths of their thresholds."""
    places = list(conditions(policies))
    members = [_member(rule, [c for _, own, c in places if own.id == rule.id], kept) for rule in rules]
    found: dict[KeyPath, float] = {}
    for rule, shares in zip(rules, _shares(members, target, slice), strict=True):
        own = [path for path, policy, _ in places if policy.id == rule.id]
        found |= zip(own, shares, strict=True)
    return found


def _member(rule: Rule, own: Sequence[Condition], kept: Projections) -> Member:
    bars = [
        Bar(kept.strengths(compiled), condition.threshold.fpr)
        for compiled, condition in zip(rule.conditions, own, strict=True)
        if isinstance(condition.threshold, FprThreshold)
    ]
    return Member(rule.id, tuple(bars), rule.require_all)
