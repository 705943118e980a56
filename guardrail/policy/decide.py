"""Decides what to do with a prompt: decide(plan, readings, facts) -> Decision. Pure; once per prompt.

The strongest action among the policies that fire wins, several `steer` combine, and every policy that
fired is reported. A score that is not finite is an error in the policies that need it, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Required, TypedDict, Unpack

from guardrail.policy.lazy_scores import LazyScores
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.types import ALLOW, Decision, Facts, Mode, Score, Status, Steering


class _Found(TypedDict, total=False):
    """The fields of a decision that do not come from the plan."""

    status: Required[Status]
    action: str
    would_action: str
    policy: str | None
    fired: tuple[str, ...]
    scores: Sequence[Score]
    steering: tuple[Steering, ...]
    error: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one rule on one prompt or reply: its scores and the action it asks for, or None."""

    rule: Rule
    mode: Mode
    scores: tuple[Score, ...]
    fired: bool
    action: str | None
    error: str | None = None


def decide(plan: Plan, readings: Sequence[float], facts: Facts) -> Decision:
    """The decision on one prompt. readings: [number of probes], scores in the order of `plan.probes`."""
    rules = plan.live(facts).rules
    if rules and plan.screen is not None and plan.screen.quiet(readings):
        scores = LazyScores(lambda: (s for r in _results(plan, rules, readings, facts) for s in r.scores))
        return _decision(plan, status="evaluated", scores=scores)
    return combined(plan, _results(plan, rules, readings, facts))


def _results(
    plan: Plan, rules: Sequence[tuple[Rule, Mode]], readings: Sequence[float], facts: Facts
) -> list[Result]:
    return [_result(plan, rule, mode, readings, facts) for rule, mode in rules]


def combined(plan: Plan, results: Sequence[Result]) -> Decision:
    """The decision from the results of all rules that apply to the request."""
    enforced = [r for r in results if r.mode == "enforce" and r.action is not None]
    wanted = [r for r in results if r.action is not None]
    winner = strongest(plan, enforced)
    errors = tuple(r.error for r in results if r.error)
    action = winner.action if winner and winner.action else ALLOW
    return _decision(
        plan,
        status="error" if errors else "evaluated" if results else "not_evaluated",
        action=action,
        would_action=_action(strongest(plan, wanted)),
        policy=winner.rule.id if winner else None,
        fired=tuple(r.rule.id for r in results if r.fired),
        scores=tuple(score for r in results for score in r.scores),
        steering=_steering(winner, enforced),
        error="; ".join(errors) or None,
    )


def _decision(plan: Plan, **found: Unpack[_Found]) -> Decision:
    return Decision(
        policy_sha256=plan.policy_sha256,
        vectors_sha256=plan.vectors_sha256,
        calibration_sha256=plan.calibration_sha256,
        fail_open=plan.fail_open,
        warnings=plan.warnings,
        **found,
    )


def strongest(plan: Plan, results: Sequence[Result]) -> Result | None:
    """The result with the strongest action; the first in the file if several are equally strong."""
    return max(results, key=lambda r: plan.strengths.get(r.action or ALLOW, 0), default=None)


def _action(result: Result | None) -> str:
    return result.action or ALLOW if result else ALLOW


def _steering(winner: Result | None, enforced: Sequence[Result]) -> tuple[Steering, ...]:
    """The steering of all rules that steer, if the winner steers. A plugin's action may steer as well."""
    found = [(r, s) for r in enforced if (s := r.rule.steering) and r.action == r.rule.action]
    return tuple(s for _, s in found) if any(r is winner for r, _ in found) else ()


def _result(plan: Plan, rule: Rule, mode: Mode, readings: Sequence[float], facts: Facts) -> Result:
    pairs = [(condition, _value(rule, condition, readings, facts)) for condition in rule.conditions]
    scores = tuple(scored(rule, mode, c, v) for c, v in pairs if math.isfinite(v))
    bad = [c for c, v in pairs if not (math.isfinite(v) and math.isfinite(c.threshold))]
    held = [score.fired for score in scores]
    fired = all(held) and not bad if rule.require_all else any(held)
    action = rule.action if fired else None
    if not bad:
        return Result(rule, mode, scores, fired, action)
    where = f" at layer {bad[0].layer}" if bad[0].layer else ""
    error = f"{rule.id}: score of {bad[0].trait}{where} is not finite"
    return failed_with(plan, rule, mode, error, scores, fired)


def failed_with(
    plan: Plan, rule: Rule, mode: Mode, error: str, scores: tuple[Score, ...] = (), fired: bool = False
) -> Result:
    """The result of a rule that could not be evaluated: `on_error`, or a stronger action that fired."""
    found = (rule.action if fired else ALLOW, rule.settings.on_error)
    stronger = max(found, key=lambda name: plan.strengths.get(name, 0))
    return Result(rule, mode, scores, fired, stronger, error)


def scored(rule: Rule, mode: Mode, condition: CompiledCondition, value: float) -> Score:
    """The score of one condition of a rule, as decisions report it."""
    return Score(
        policy=rule.id,
        trait=condition.trait,
        layer=condition.layer,
        score=value,
        threshold=condition.threshold,
        fired=condition.holds(value),
        mode=mode,
    )


def _value(rule: Rule, condition: CompiledCondition, readings: Sequence[float], facts: Facts) -> float:
    if condition.drift is not None:
        return facts.drift.get(rule.id, math.nan)
    if condition.reading is None:
        return facts.extra.get(condition.trait, math.nan)
    return float(readings[condition.reading])


def recheck(plan: Plan, decision: Decision, readings: Sequence[float], layer: int | None = None) -> Decision:
    """The decision after steering: a rule that still fires at its later layer falls back to `otherwise`.

    `layer` limits this to the rules that are read again at that layer; None means all.
    """
    rules = [rule for s in decision.steering if (rule := plan.rule(s.policy)) and rule.recheck]
    due = [rule for rule in rules if rule.recheck and layer in (None, rule.recheck.layer)]
    failed = [rule for rule in due if rule.recheck and not _passed(rule.recheck, readings)]
    if not failed:
        return decision
    rule = max(failed, key=lambda rule: plan.strengths.get(rule.otherwise, 0))
    note = f"{rule.id}: steering did not bring the score below its threshold"
    steering = decision.steering if rule.otherwise == ALLOW else ()
    action = decision.action if rule.otherwise == ALLOW else rule.otherwise
    return replace(
        decision, action=action, policy=rule.id, steering=steering, warnings=(*decision.warnings, note)
    )


def _passed(condition: CompiledCondition, readings: Sequence[float]) -> bool:
    value = float(readings[condition.reading if condition.reading is not None else 0])
    return math.isfinite(value) and not condition.holds(value)


def failure(plan: Plan, facts: Facts, error: str, timeout: bool = False) -> Decision:
    """The decision if nothing could be evaluated: the strongest `on_error` or `on_timeout`."""
    return _unevaluated(plan, _on_failure(plan, facts, timeout), "error", error)


def _on_failure(plan: Plan, facts: Facts, timeout: bool) -> dict[str, str]:
    rules = [rule for rule, mode in plan.live(facts).rules if mode == "enforce"]
    return {rule.on_timeout if timeout else rule.settings.on_error: rule.id for rule in reversed(rules)}


def unreviewed(plan: Plan, facts: Facts, decision: Decision, error: str, timeout: bool = False) -> Decision:
    """The decision if a plugin could not review it: as `failure`, or a stronger action that is known."""
    text = f"{decision.error}; {error}" if decision.error else error
    return _overruled(plan, _on_failure(plan, facts, timeout), decision, text)


def unsupported(plan: Plan, facts: Facts, reason: str) -> Decision:
    """The decision on input that cannot be read: the strongest `unsupported_input` of the rules."""
    picks = {rule.settings.unsupported_input: rule.id for rule in reversed(_enforced(plan, facts))}
    return _unevaluated(plan, picks, "not_evaluated", reason)


def changed_model(plan: Plan, facts: Facts, decision: Decision, change: str) -> Decision:
    """The decision if the model is not the one that was loaded: `on_model_change`, or a stronger action."""
    picks = {rule.settings.on_model_change: rule.id for rule in reversed(_enforced(plan, facts))}
    return _overruled(plan, picks, decision, f"the model has changed since it was loaded: {change}")


def stale(plan: Plan, facts: Facts, decision: Decision) -> Decision:
    """The decision if the calibration's certificate is stale (`facts.stale`): `on_stale`, or stronger.

    Rules that `on_stale` made shadows are no longer enforced, and have no say in it.
    """
    reason = f"{facts.stale}: run `guardrail certify` again"
    if rules := _enforced(plan, facts):
        picks: dict[str, str] = {rule.settings.on_stale: rule.id for rule in reversed(rules)}
        return _overruled(plan, picks, decision, reason)
    return replace(decision, warnings=(*decision.warnings, reason))


def _overruled(plan: Plan, picks: dict[str, str], decision: Decision, error: str) -> Decision:
    """What the strongest of these actions makes of a decision that rests on what no longer holds."""
    instead, order = _unevaluated(plan, picks, "error", error), plan.strengths
    if order.get(instead.action, 0) > order.get(decision.action, 0):
        return replace(instead, scores=decision.scores, fired=decision.fired)
    return replace(decision, status="error", error=error, warnings=(*decision.warnings, error))


def _enforced(plan: Plan, facts: Facts) -> list[Rule]:
    """The rules about prompts and replies that are enforced for this request."""
    every = [rule for rule in (*plan.rules, *plan.reply_rules) if rule.applies(facts)]
    return [rule for rule in every if rule.effective_mode(facts) == "enforce"]


def _unevaluated(plan: Plan, picks: dict[str, str], status: Status, error: str) -> Decision:
    action = max(picks, key=lambda name: plan.strengths.get(name, 0), default=ALLOW)
    return _decision(
        plan, status=status, action=action, would_action=action, policy=picks.get(action), error=error
    )


def tighten(plan: Plan, decision: Decision, action: str, reason: str, may_loosen: bool = False) -> Decision:
    """Apply a plugin's action: it replaces a weaker one, and a stronger one only if `may_loosen`."""
    order = plan.strengths
    if order.get(action, 0) <= order.get(decision.action, 0) and not may_loosen:
        return decision
    steering = decision.steering if action == decision.action else ()
    would = decision.would_action if order.get(decision.would_action, 0) > order.get(action, 0) else action
    return replace(
        decision, action=action, would_action=would, steering=steering, warnings=(*decision.warnings, reason)
    )
