"""How often a plan fires on benign prompts: for each policy, and as a bound for the whole set. Pure maths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from guardrail.calibration import Calibration, Tail, fpr_interval, observed_fpr
from guardrail.plan import CompiledCondition, Plan, Rule


@dataclass(frozen=True, slots=True)
class Rate:
    """A false-positive rate with its 95 % interval, from `n` benign prompts.

    `bound` marks an upper bound: the rates of several conditions or policies, added up.
    """

    value: float
    low: float
    high: float
    n: int
    bound: bool = False


def condition_rate(condition: CompiledCondition, calibration: Calibration | None) -> Rate | None:
    """The rate a threshold was calibrated for, else the rate seen in the calibration; None without one."""
    benign = calibration.probes.get(condition.trait, {}) if calibration else {}
    if condition.layer is None or condition.layer not in benign:
        return None
    known = benign[condition.layer]
    if condition.fpr is not None:
        return Rate(condition.fpr, *fpr_interval(known.n, condition.fpr), known.n)
    tail: Tail = "upper" if condition.fires == "above" else "lower"
    return Rate(*observed_fpr(known.beyond(condition.raw, tail), known.n), known.n)


def rule_rate(rule: Rule, calibration: Calibration | None) -> Rate | None:
    """`any_of` is bounded by the sum of its conditions, `all_of` by the rarest; None where unknown."""
    rates = [condition_rate(condition, calibration) for condition in rule.conditions]
    known = [rate for rate in rates if rate is not None]
    if len(rule.conditions) == 1:
        return rates[0]
    if rule.require_all:
        rarest = min(known, key=lambda rate: rate.high, default=None)
        return rarest and Rate(rarest.value, 0.0, rarest.high, rarest.n, bound=True)
    return _sum(known) if len(known) == len(rates) else None


def set_rate(plan: Plan, calibration: Calibration | None) -> Rate | None:
    """An upper bound for all enforced policies together: the sum, at most 1. None where one is unknown."""
    rates = [rule_rate(rule, calibration) for rule in plan.rules if rule.mode == "enforce"]
    known = [rate for rate in rates if rate is not None]
    return _sum(known) if len(known) == len(rates) else None


def _sum(rates: Iterable[Rate]) -> Rate:
    """The union is at least as likely as its likeliest part, and at most as likely as their sum."""
    known = list(rates)
    return Rate(
        min(1.0, sum(rate.value for rate in known)),
        max((rate.low for rate in known if not rate.bound), default=0.0),
        min(1.0, sum(rate.high for rate in known)),
        min((rate.n for rate in known), default=0),
        bound=len(known) != 1,
    )
