"""What a person would get: from the plain model, and under the action of each policy, side by side.

Nothing is decided, recorded or escalated here; each action is shown as if its policy had fired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from guardrail.actions.block import REFUSAL
from guardrail.actions.escalate import EscalateConfig
from guardrail.actions.rephrase import RephraseConfig
from guardrail.engines import Engine
from guardrail.errors import RequestError
from guardrail.pipeline.look.results import Preview
from guardrail.pipeline.unguarded import NOTHING, UNDECIDED, said
from guardrail.pipeline.worker import Worker
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.plan import Plan
from guardrail.policy.rules import Rule
from guardrail.types import Decision, Message, Sampling


class Previewer:
    """Asks the model on its worker, greedily, for at most so many tokens."""

    def __init__(self, engine: Engine, worker: Worker, policies: ActivePolicies, new_tokens: int) -> None:
        self._engine, self._worker, self._policies = engine, worker, policies
        self._sampling = Sampling(max_new_tokens=new_tokens, temperature=0.0)

    def all(self, messages: Sequence[Message]) -> tuple[Preview, ...]:
        """The plain model first, then each policy that is on, in the order of the file."""
        plain = Preview(policy=None, action="plain", text=self._said(messages, NOTHING, UNDECIDED))
        rules = [rule for rule in self._policies.plan.rules if rule.mode != "off"]
        return (plain, *(self._under(rule, messages) for rule in rules))

    def _under(self, rule: Rule, messages: Sequence[Message]) -> Preview:
        made = partial(Preview, policy=rule.id, action=rule.action)
        try:
            if rule.steering is not None:
                return made(text=self._steered(rule, messages))
            if isinstance(rule.config, RephraseConfig):
                return made(text=self._rephrased(rule.config, messages))
        except RequestError as error:
            return made(text=str(error), kind="none")
        return _fixed(rule)

    def _steered(self, rule: Rule, messages: Sequence[Message]) -> str:
        assert rule.steering is not None
        plan = replace(self._policies.plan, rules=(replace(rule, mode="enforce"),), reply_rules=())
        decision = Decision(status="evaluated", action="steer", policy=rule.id, steering=(rule.steering,))
        return self._said(messages, plan, decision)

    def _rephrased(self, config: RephraseConfig, messages: Sequence[Message]) -> str:
        rephraser = self._policies.plugins.rephrasers[config.by]
        changed = rephraser.rephrase(
            tuple(messages), config.instruction, lambda asked: self._said(asked, NOTHING, UNDECIDED)
        )
        return self._said(changed, NOTHING, UNDECIDED)

    def _said(self, messages: Sequence[Message], plan: Plan, decision: Decision) -> str:
        ask = partial(said, self._engine, messages, plan, decision, self._sampling)
        return self._worker.submit(ask).result()


def _fixed(rule: Rule) -> Preview:
    """An action that says a fixed text, or one that is not tried out here."""
    made = partial(Preview, policy=rule.id, action=rule.action, kind="message")
    if rule.action == "block":
        return made(text=rule.message or REFUSAL)
    if isinstance(rule.config, EscalateConfig):
        return made(text=rule.config.holding)
    return made(text="this action is not tried out here", kind="none")
