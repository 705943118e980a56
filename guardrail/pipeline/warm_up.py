"""One harmless prompt for every policy in force: shows that this guard can decide, and acts on nothing.

Policies are in shadow, so that nothing is blocked and no ticket is opened, and apply whatever their `when`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from guardrail.files.records import new_id
from guardrail.pipeline import chat
from guardrail.pipeline.driver import Driver
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.request import request
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.model import When
from guardrail.policy.plan import Plan
from guardrail.policy.rules import Rule
from guardrail.types import Decision, Sampling

PREFIX = "warm-up-"
"""The audit ids of these requests begin with it."""
PROMPT = "Hello"
TOKENS = 2
"""Of the reply: the state at a token is there once the next one is generated."""


def warm_up(driver: Driver, policies: ActivePolicies) -> tuple[str, ...]:
    """What keeps the policies from deciding; empty if every one of them has scored the prompt or the reply.

    Raises QueueFull, GuardClosed, AuditError, and what the model raises.
    """
    plan = _for_all(policies.plan)
    made = replace(request("chat", PROMPT), id=PREFIX + new_id())
    exchange = Exchange.of(made, replace(policies, plan=plan))
    (reply,) = chat.chat(driver, [exchange], Sampling(max_new_tokens=TOKENS, temperature=0.0))
    # a model that has nothing to say leaves nothing to read
    reply_rules = plan.reply_rules if reply.new_tokens == TOKENS else ()
    return (*_problems(plan.rules, reply.decision), *_problems(reply_rules, reply.reply_decision))


def _for_all(plan: Plan) -> Plan:
    return replace(
        plan, rules=tuple(map(_shadow, plan.rules)), reply_rules=tuple(map(_shadow, plan.reply_rules))
    )


def _shadow(rule: Rule) -> Rule:
    return rule if rule.mode == "off" else replace(rule, mode="shadow", when=When())


def _problems(rules: Sequence[Rule], decision: Decision | None) -> Iterator[str]:
    if decision is not None and decision.status == "error":
        yield decision.error or "not evaluated"
    scored = {score.policy for score in decision.scores} if decision else set[str]()
    for rule in rules:
        if rule.mode != "off" and rule.id not in scored:
            yield f"{rule.id}: was not evaluated"
