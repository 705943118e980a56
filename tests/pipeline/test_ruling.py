"""Rulings: whether a prompt may go to a model that this guard cannot steer or rephrase for."""

import pytest
from tiny import NEVER, guard, policy

from guardrail.actions.block import REFUSAL
from guardrail.actions.escalate import HOLDING
from guardrail.audit.reading import read
from guardrail.pipeline.ruling import elsewhere
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import ActionConfig, Answer, Retry
from guardrail.testing import MemoryQueue
from guardrail.types import STOP, Message

STEER = {"operator": "add", "coefficient": -1.0}
PERSON = {"escalate": {"wait_s": 0}}


class Scripted:
    """A plugin with an action that gives this response."""

    name, strength, Config = "scripted", 45, ActionConfig

    def __init__(self, response):
        self.response = response

    def compile(self, config):
        return STOP

    def respond(self, config, context):
        if isinstance(self.response, Exception):
            raise self.response
        return self.response

    @hookimpl
    def guardrail_actions(self):
        return [self]


def ruled(folder, *rules, plugin=None, **keys):
    options = {"plugins": [plugin]} if plugin else None
    with guard(folder, *rules, options=options, **keys) as made:
        ruling = made.ruling("Hello")
        assert elsewhere(ruling.decision, made.active.plan)
        return ruling


def test_what_no_policy_fires_on_passes(tmp_path):
    ruling = ruled(tmp_path, policy(threshold=NEVER))
    assert (ruling.passes, ruling.text, ruling.decision.status) == (True, None, "evaluated")


@pytest.mark.parametrize("action", ["block", {"steer": STEER}, {"rephrase": {"instruction": "Be kind."}}])
def test_block_and_what_only_the_model_itself_could_do_refuse(tmp_path, action):
    ruling = ruled(tmp_path, policy(action, message="No."))
    assert (ruling.passes, ruling.text, ruling.ticket_id) == (False, "No.", None)
    assert ruling.decision.action in ("block", "steer", "rephrase")


@pytest.mark.parametrize(
    "action", [{"steer": STEER | {"otherwise": "allow"}}, {"rephrase": {"otherwise": "allow"}}]
)
def test_otherwise_lets_it_pass_and_says_so(tmp_path, action):
    ruling = ruled(tmp_path, policy(action))
    assert ruling.passes
    assert [decision.action for decision in ruling.earlier] == [next(iter(action))]
    assert f"test: lifted after {next(iter(action))}" in ruling.decision.warnings


def test_otherwise_lifts_its_own_policy_alone(tmp_path):
    lenient = policy({"steer": STEER | {"otherwise": "allow"}}, id="lenient")
    ruling = ruled(tmp_path, lenient, policy({"rephrase": {}}, id="strict"))
    assert (ruling.passes, ruling.decision.policy) == (False, "strict")
    ruling = ruled(tmp_path, lenient, policy({"steer": STEER}, id="strict"))
    assert (ruling.passes, ruling.text) == (False, REFUSAL)


def test_an_escalation_refuses_and_names_the_ticket(tmp_path):
    with guard(tmp_path, policy(PERSON), audit={"jsonl": str(tmp_path / "audit.jsonl")}) as made:
        ruling = made.ruling("Hello")
        assert (ruling.passes, ruling.text) == (False, HOLDING)
        ticket = made.ticket(ruling.ticket_id)
    assert ticket.messages == (Message("user", "Hello"),)
    (record,) = read(tmp_path / "audit.jsonl")
    assert (record.kind, record.outcome, record.ticket_id) == ("ruling", "escalated", ticket.id)


def test_a_prompt_that_a_person_approves_in_time_passes(tmp_path):
    class Eager(MemoryQueue):
        name = "eager"

        def open(self, ticket):
            super().open(ticket)
            self.resolve(ticket.id, approve=True, resolver="ann")

    class Sinks:
        @hookimpl
        def guardrail_escalation_sinks(self):
            return [Eager()]

    ruling = ruled(tmp_path, policy({"escalate": {"to": "eager", "wait_s": 1}}), plugin=Sinks())
    assert (ruling.passes, ruling.earlier[0].action) == (True, "escalate")


def test_other_messages_cannot_be_sent(tmp_path):
    ruling = ruled(tmp_path, policy("scripted"), plugin=Scripted(Retry((Message("user", "Bye"),))))
    assert (ruling.passes, ruling.text) == (False, REFUSAL)


def test_an_action_of_a_plugin_answers(tmp_path):
    assert ruled(tmp_path, policy("scripted"), plugin=Scripted(Answer("Later."))).text == "Later."


def test_an_error_is_what_on_error_says(tmp_path):
    broken = Scripted(ValueError("secret"))
    assert not ruled(tmp_path, policy("scripted", on_error="block"), plugin=broken).passes
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        refused = made.ruling(image)
    assert (refused.passes, refused.decision.status) == (False, "not_evaluated")


async def test_many_and_async(tmp_path):
    with guard(tmp_path, policy("block", when={"tags": ["x"]})) as made:
        assert [ruling.passes for ruling in made.ruling_many(["a", "b"])] == [True, True]
        assert made.ruling("a").decision.status == "not_evaluated"
        assert not (await made.aruling("a", tags=["x"])).passes


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([policy(threshold=NEVER)], "allow"),
        ([policy("block")], "block"),
        ([policy(PERSON)], "escalate"),
        ([policy({"rephrase": {}})], "block"),
        ([policy({"steer": STEER | {"otherwise": "allow"}})], "allow"),
        ([policy({"steer": STEER | {"otherwise": "allow"}}), policy({"steer": STEER}, id="b")], "block"),
    ],
)
def test_what_a_decision_comes_to_elsewhere(tmp_path, rules, expected):
    with guard(tmp_path, *rules) as made:
        decision = made.check("Hello").decision
        assert elsewhere(decision, made.active.plan) == expected
