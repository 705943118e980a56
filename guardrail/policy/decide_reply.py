"""Decides what to do with a reply, from what an engine observed while it generated. Pure.

As with prompts, the strongest action among the policies that fired wins, and a value that is not finite is
an error in the policies that need it. A reply that was not read counts as not evaluated, never as passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from guardrail.policy.decide import Result, combined, failed_with, scored, strongest
from guardrail.policy.plan import Plan
from guardrail.policy.rules import Rule
from guardrail.types import Decision, Facts, Mode, Score


@dataclass(frozen=True, slots=True)
class Watch:
    """What to follow in one reply: the mode of each reply rule (`off` if it does not apply to this request).

    `turn` says whether the means of the conversation probes are needed at the end.
    """

    modes: tuple[Mode, ...]
    turn: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is something to follow."""
        return self.turn or any(mode != "off" for mode in self.modes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What an engine saw of a reply: the number of `tokens` read, and when each reply rule fired (or None).

    `values` are scores in the order of `plan.reply_probes`: for each condition of the reply rules, the most
    extreme value of its running statistic.
    """

    tokens: int
    fired: tuple[int | None, ...] = ()
    values: tuple[float, ...] = ()
    error: str | None = None


def watch(plan: Plan, facts: Facts, turn: bool = False) -> Watch:
    """What to follow in the reply to this request."""
    modes: list[Mode] = [r.effective_mode(facts) if r.applies(facts) else "off" for r in plan.reply_rules]
    return Watch(tuple(modes), turn)


def decide_reply(plan: Plan, observed: Observed, facts: Facts) -> Decision:
    """The decision on the observed part of a reply."""
    modes = watch(plan, facts).modes
    live: list[tuple[int, Mode]] = [(i, mode) for i, mode in enumerate(modes) if mode != "off"]
    results = [_result(plan, i, plan.reply_rules[i], mode, observed) for i, mode in live]
    decision = combined(plan, results)
    winner = strongest(plan, [r for r in results if r.mode == "enforce" and r.action is not None])
    unread = decision.status == "evaluated" and observed.tokens == 0
    return replace(
        decision,
        status="not_evaluated" if unread else decision.status,
        stage="response",
        token=_when(plan, winner, observed),
    )


def _when(plan: Plan, winner: Result | None, observed: Observed) -> int | None:
    if winner is None or not observed.fired:
        return None
    return observed.fired[plan.reply_rules.index(winner.rule)]


def _result(plan: Plan, i: int, rule: Rule, mode: Mode, observed: Observed) -> Result:
    if observed.error is not None:
        return failed_with(plan, rule, mode, f"{rule.id}: {observed.error}")
    if observed.tokens == 0:
        return Result(rule, mode, (), False, None)
    pairs = [(c, observed.values[c.reading]) for c in rule.conditions if c.reading is not None]
    scores = tuple(scored(rule, mode, c, value) for c, value in pairs if math.isfinite(value))
    if bad := [c for c, value in pairs if not math.isfinite(value)]:
        where = f"{bad[0].trait} at layer {bad[0].layer}"
        error = f"{rule.id}: score of {where} is not finite"
        return failed_with(plan, rule, mode, error, scores, _fired_all_the_same(rule, scores))
    fired = observed.fired[i] is not None
    return Result(rule, mode, scores, fired, rule.action if fired else None)


def _fired_all_the_same(rule: Rule, scores: tuple[Score, ...]) -> bool:
    """Whether one of the conditions that can be compared is enough."""
    return not rule.require_all and any(score.fired for score in scores)


def reply_failure(plan: Plan, facts: Facts, error: str) -> Decision:
    """The decision if the reply could not be followed: the strongest `on_error` of its rules."""
    return decide_reply(plan, Observed(tokens=0, error=error), facts)
