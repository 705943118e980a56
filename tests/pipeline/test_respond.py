"""What actions get, and what takes over if one gives up, fails or returns nonsense."""

import pytest
from tiny import NEVER, TOKENIZER, guard, policy

from guardrail.actions.block import REFUSAL
from guardrail.actions.escalate import HOLDING
from guardrail.pipeline.exchange import Exchange
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import ActionConfig, Answer, Otherwise, Retry
from guardrail.testing import MemoryQueue
from guardrail.types import STOP, Decision, Message, Ticket

GREEDY = {"temperature": 0, "max_new_tokens": 4}
AGAIN = (Message("user", "Hello again"),)


class Scripted:
    """A plugin with an action that gives these responses, one after another; it remembers what it got."""

    name, strength = "scripted", 45

    class Config(ActionConfig):
        word: str = "default"

    def __init__(self, *responses, asks=None):
        self.responses, self.asks, self.seen = list(responses), asks, []

    def compile(self, config):
        return STOP

    def respond(self, config, context):
        self.seen.append((config, context))
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    @hookimpl
    def guardrail_actions(self):
        return [self]

    @hookimpl
    def guardrail_review(self, decision, messages):
        return self.asks


def chatted(folder, plugin, *rules, **keys):
    with guard(folder, *rules, options={"plugins": [plugin]}, **keys) as made:
        return made.chat("Hello", **GREEDY)


def generated(folder, plugin, *rules):
    """The text and the decision of a `generate`."""
    inputs = TOKENIZER("Hello", return_tensors="pt")
    with guard(folder, *rules, options={"plugins": [plugin]}) as made:
        output = made.generate(**inputs, max_new_tokens=4, pad_token_id=0)
        width = inputs["input_ids"].shape[1]
        return TOKENIZER.decode(output[0, width:], skip_special_tokens=True), made.last_decisions[0]


def test_an_action_can_hand_over_to_a_person(tmp_path):
    reply = chatted(tmp_path, Scripted(Otherwise("escalate")), policy("scripted", message="No."))
    assert (reply.text, reply.outcome) == (HOLDING, "escalated")
    assert reply.ticket_id is not None


def test_if_the_person_cannot_be_asked_either_the_answer_is_the_policys_message(tmp_path, monkeypatch):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path))
    reply = chatted(tmp_path, Scripted(Otherwise("escalate")), policy("scripted", message="No."))
    assert (reply.text, reply.outcome, reply.ticket_id) == ("No.", "blocked", None)


@pytest.mark.parametrize("response", [ValueError("secret"), Answer(5), "text"])
def test_an_action_that_fails_gives_way_to_on_error(tmp_path, response):
    reply = chatted(tmp_path, Scripted(response), policy("scripted", on_error="escalate"))
    assert (reply.text, reply.outcome) == (HOLDING, "escalated")
    kind = "ValueError" if isinstance(response, ValueError) else "EvaluationError: "
    assert any(text.startswith(f"action `scripted` failed: {kind}") for text in reply.decision.warnings)
    assert "secret" not in str(reply.decision.warnings)


def test_an_action_that_fails_for_a_plugin_is_a_block(tmp_path):
    plugin = Scripted(ValueError("secret"), asks="scripted")
    assert chatted(tmp_path, plugin, policy(threshold=NEVER)).text == REFUSAL


def test_an_action_gets_the_configuration_of_its_policy(tmp_path):
    plugin = Scripted(Answer("done"))
    assert chatted(tmp_path, plugin, policy({"scripted": {"word": "other"}})).text == "done"
    ((config, _),) = plugin.seen
    assert config.word == "other"


@pytest.mark.parametrize("rule", [policy(threshold=NEVER), policy("block")])
def test_an_action_that_a_plugin_asked_for_gets_its_default_configuration(tmp_path, rule):
    plugin = Scripted(Answer("done"), asks="scripted")
    assert chatted(tmp_path, plugin, rule).text == "done"
    ((config, _),) = plugin.seen
    assert config.word == "default"


def test_an_action_gets_what_it_may_use(tmp_path):
    plugin, queue = Scripted(Retry(AGAIN), Retry(AGAIN), Answer("done")), MemoryQueue()

    class Queue:
        @hookimpl
        def guardrail_escalation_sinks(self):
            return [queue]

    with guard(tmp_path, policy("scripted", message="No."), options={"plugins": [plugin, Queue()]}) as made:
        reply = made.chat("Hello", **GREEDY)
        rephrasers = made.active.plugins.rephrasers
    contexts = [context for _, context in plugin.seen]
    assert [context.messages for context in contexts] == [(Message("user", "Hello"),), AGAIN, AGAIN]
    assert [context.decision for context in contexts[:2]] == list(reply.earlier)
    assert [context.attempt for context in contexts] == [0, 1, 2]
    assert {(context.policy, context.message) for context in contexts} == {("test", "No.")}
    assert contexts[0].sinks[queue.name].sink is queue
    assert contexts[0].rephrasers.keys() == rephrasers.keys() >= {"instruction", "model"}


def test_without_a_policy_an_action_gets_no_name_and_no_message(tmp_path):
    plugin = Scripted(Answer("done"), asks="scripted")
    chatted(tmp_path, plugin, policy(threshold=NEVER, message="No."))
    ((_, context),) = plugin.seen
    assert (context.policy, context.message, context.attempt) == ("", None, 0)


def test_each_policy_counts_its_own_attempts(tmp_path):
    plugin = Scripted(Retry(AGAIN), Retry(AGAIN, waive=frozenset({"first"})), Answer("done"))
    rules = (policy("scripted", id="first"), policy("scripted", id="second"))
    assert chatted(tmp_path, plugin, *rules).text == "done"
    assert [(context.policy, context.attempt) for _, context in plugin.seen] == [
        ("first", 0),
        ("first", 1),
        ("second", 0),
    ]


def test_another_round_of_a_generate_is_a_refusal(tmp_path):
    text, decision = generated(tmp_path, Scripted(Retry(AGAIN)), policy("scripted", message="No."))
    assert (text, decision.action) == ("No.", "scripted")
    text, decision = generated(tmp_path, Scripted(Retry(AGAIN), asks="scripted"), policy(threshold=NEVER))
    assert (text, decision.policy) == (REFUSAL, None)


def test_rephrasing_in_a_generate_gives_way_to_otherwise(tmp_path):
    rule = policy({"rephrase": {"otherwise": "escalate"}}, message="No.")
    text, decision = generated(tmp_path, Scripted(), rule)
    assert (text, decision.action) == (HOLDING, "rephrase")


def test_rephrasing_in_a_generate_that_a_plugin_asked_for_is_a_block(tmp_path):
    text, decision = generated(tmp_path, Scripted(asks="rephrase"), policy(threshold=NEVER, message="No."))
    assert (text, decision.action) == (REFUSAL, "rephrase")


@pytest.mark.parametrize(
    ("other", "text", "outcome"), [("escalate", HOLDING, "escalated"), ("allow", "No.", "blocked")]
)
def test_a_reply_that_was_stopped_can_go_to_a_person_and_is_never_allowed(tmp_path, other, text, outcome):
    rule = policy("scripted", {"raw": -1e6}, stage="response", message="No.")
    reply = chatted(tmp_path, Scripted(Otherwise(other)), rule)
    assert (reply.text, reply.outcome) == (text, outcome)


@pytest.mark.parametrize("stage", ["prompt", "response"])
def test_an_action_that_takes_over_in_vain_is_recorded_and_then_the_block_once(tmp_path, monkeypatch, stage):
    recorded, real = [], Exchange.gave_way
    monkeypatch.setattr(Exchange, "gave_way", lambda self, name: recorded.append(name) or real(self, name))
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", "/proc/none/queue.sqlite")
    rule = policy("scripted", {"raw": -1e6}, stage=stage, message="No.")
    reply = chatted(tmp_path, Scripted(Otherwise("escalate")), rule)
    assert (reply.text, reply.final.otherwise, recorded) == ("No.", "block", ["escalate", "block"])


@pytest.mark.parametrize("stage", ["prompt", "response"])
def test_the_ticket_of_an_action_that_gives_up_is_kept(tmp_path, stage):
    ticket = Ticket(
        id="t-1", policy="test", state="pending", created="", decision=Decision(status="error"), messages=()
    )
    rule = policy("scripted", {"raw": -1e6}, stage=stage, message="No.")
    reply = chatted(tmp_path, Scripted(Otherwise("block", ticket)), rule)
    assert (reply.text, reply.outcome, reply.ticket_id) == ("No.", "blocked", "t-1")


def test_an_action_can_lift_its_own_policy_for_this_request(tmp_path):
    reply = chatted(tmp_path, Scripted(Otherwise("allow")), policy("scripted"))
    assert (reply.outcome, reply.decision.action, reply.new_tokens) == ("answered", "allow", 4)
    assert "test: lifted after scripted" in reply.decision.warnings
