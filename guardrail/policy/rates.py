"""Estimates how often a plan fires on benign prompts and replies, per policy and in total. Pure maths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from guardrail.calibration.benign import Benign, Tail
from guardrail.calibration.values import Calibration
from guardrail.policy.model import Monitor
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.statistics.conformal import fpr_interval, observed_fpr
from guardrail.statistics.intervals import Estimate


@dataclass(frozen=True, slots=True)
class Rate(Estimate):
    """A false-positive rate with its 95 % interval, from `n` benign prompts (or replies).

    `bound` marks an upper bound: the rates of several conditions or policies, added up.
    """

    n: int
    bound: bool = False


def condition_rate(
    condition: CompiledCondition,
    calibration: Calibration | None,
    monitor: Monitor | None = None,
    slice: str | None = None,
) -> Rate | None:
    """The rate that a threshold was calibrated for, else the rate in the calibration, or None without one.

    With a `monitor` it is the rate per benign reply, with a `slice` the rate on its prompts.
    """
    tail: Tail = "upper" if condition.fires == "above" else "lower"
    known = benign_of(condition, calibration, monitor, slice, tail)
    if known is None:
        return None
    if condition.fpr is not None and condition.slice == slice:
        return Rate(condition.fpr, *fpr_interval(known.n, condition.fpr), known.n)
    return Rate(*observed_fpr(known.beyond(condition.raw, tail), known.n), known.n)


def benign_of(
    condition: CompiledCondition,
    calibration: Calibration | None,
    monitor: Monitor | None,
    slice: str | None,
    tail: Tail,
) -> Benign | None:
    """What a rate of the condition is counted in: benign prompts (of a slice) or replies; None if unknown."""
    if calibration is None or condition.layer is None or condition.drift is not None:
        return None
    if monitor is None:
        probes = calibration.probes if slice is None else calibration.slices[slice].probes
        return probes.get(condition.trait, {}).get(condition.layer)
    if slice is not None:
        return None
    replies = calibration.replies.get(condition.trait, {}).get(condition.layer)
    table = {} if replies is None else replies.highest if tail == "upper" else replies.lowest
    return table.get(monitor.key)


def rule_rate(rule: Rule, calibration: Calibration | None, slice: str | None = None) -> Rate | None:
    """The sum of its conditions bounds `any_of`, the rarest one bounds `all_of`. None if unknown."""
    rates = [condition_rate(one, calibration, rule.monitor, slice) for one in rule.conditions]
    known = [rate for rate in rates if rate is not None]
    if len(rule.conditions) == 1:
        return rates[0]
    if rule.require_all:
        rarest = min(known, key=lambda rate: rate.high, default=None)
        return rarest and Rate(rarest.value, 0.0, rarest.high, rarest.n, bound=True)
    return _sum(known) if len(known) == len(rates) else None


def set_rate(plan: Plan, calibration: Calibration | None, slice: str | None = None) -> Rate | None:
    """An upper bound for all enforced policies together: the sum, at most 1. None if one is unknown.

    With response policies the rate is per benign prompt and its reply; a slice has prompts only.
    """
    rules = (*plan.rules, *(plan.reply_rules if slice is None else ()))
    rates = [rule_rate(rule, calibration, slice) for rule in rules if rule.mode == "enforce"]
    known = [rate for rate in rates if rate is not None]
    return _sum(known) if len(known) == len(rates) else None


def _sum(rates: Iterable[Rate]) -> Rate:
    """A bound for the union: at least its likeliest part, at most the sum of all parts."""
    known = list(rates)
    return Rate(
        min(1.0, sum(rate.value for rate in known)),
        max((rate.low for rate in known if not rate.bound), default=0.0),
        min(1.0, sum(rate.high for rate in known)),
        min((rate.n for rate in known), default=0),
        bound=len(known) != 1,
    )
