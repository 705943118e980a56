"""The warm-up check asks every policy, whatever it applies to, and does nothing to anybody."""

import pytest
import torch
from tiny import FIRES, NEVER, guard, policy

from guardrail.errors import AuditError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import MemoryAudit, MemoryQueue

KINDS = [
    policy(id="plain", threshold=NEVER),
    policy(id="tagged", threshold=NEVER, when={"tags": ["shop"], "min_turns": 3, "last_role": "tool"}),
    policy(id="some", threshold=NEVER, enforce={"share": 0.0}),
    policy(id="watched", threshold=NEVER, mode="shadow"),
    policy(id="off", threshold=NEVER, mode="off"),
    policy(id="reply", threshold={"raw": NEVER}, stage="response"),
]


class Plugin:
    """A scorer that can be told what to answer, and sinks that remember."""

    name = "shouting"

    def __init__(self):
        self.answer, self.audit, self.queue = 0.0, MemoryAudit(), MemoryQueue()

    def score(self, messages):
        return self.answer

    @hookimpl
    def guardrail_scorers(self):
        return [self]

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self.audit]

    @hookimpl
    def guardrail_escalation_sinks(self):
        return [self.queue]


@pytest.fixture
def plugin():
    return Plugin()


def test_every_policy_scores_whatever_it_applies_to(tmp_path, plugin):
    with guard(tmp_path, *KINDS, options={"plugins": [plugin]}) as made:
        assert made.warm_up() == ()
        (record,) = plugin.audit.records.values()
        scored = {score.policy for score in (*record.decision.scores, *record.reply_decision.scores)}
    assert scored == {"plain", "tagged", "some", "watched", "reply"}
    assert record.id.startswith("warm-up-")


def test_policies_that_fire_neither_block_nor_open_tickets(tmp_path, plugin):
    escalate = {"escalate": {"to": "memory-queue"}}
    rules = [
        policy(id="prompt", threshold=FIRES),
        policy(escalate, id="ticket", threshold=FIRES),
        policy(id="reply", threshold={"raw": FIRES}, stage="response"),
    ]
    with guard(tmp_path, *rules, options={"plugins": [plugin]}) as made:
        assert made.warm_up() == ()
        (record,) = plugin.audit.records.values()
        assert (record.outcome, record.decision.action, plugin.queue.tickets) == ("answered", "allow", {})
        assert made.check("hello").decision.action == "block"


def test_a_policy_that_cannot_be_evaluated_is_named_until_it_can(tmp_path, plugin):
    rules = [policy(id="plain", threshold=NEVER), policy(id="loud", trait="shouting", threshold=0.5)]
    with guard(tmp_path, *rules, options={"plugins": [plugin]}) as made:
        plugin.answer = float("nan")
        assert "loud: score of shouting is not finite" in made.warm_up()
        assert "loud: was not evaluated" in made.warm_up()
        plugin.answer = 0.0
        assert made.warm_up() == ()


def test_a_model_that_is_another_one_now_is_a_problem(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        with torch.no_grad():
            made.model.model.norm.weight.mul_(1.5)
        assert "the model has changed" in made.warm_up()[0]


def test_a_record_that_cannot_be_written_raises(tmp_path, plugin):
    with guard(tmp_path, policy(threshold=NEVER), options={"plugins": [plugin]}) as made:
        plugin.audit.failing = True
        with pytest.raises(AuditError):
            made.warm_up()


def test_no_policy_is_no_problem(tmp_path):
    with guard(tmp_path, allow_empty=True) as made:
        assert made.warm_up() == ()
