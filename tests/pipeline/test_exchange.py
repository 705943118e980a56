"""What travels through the guard: its decision, its history, and what an action may change of it."""

from time import perf_counter

import pytest
from worlds import loaded, rule, world

from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.request import request
from guardrail.types import Decision, Message, Timing

TALK = (
    Message("system", "Be kind."),
    Message("user", "1 + 1?"),
    Message("assistant", "two"),
    Message("user", "2 + 2?"),
)
ALLOW = Decision(status="evaluated")
BLOCK = Decision(status="evaluated", action="block", policy="p")


@pytest.fixture
def exchange(tmp_path):
    return Exchange.of(request("chat", TALK), loaded(world(tmp_path), rule()))


def test_history_holds_the_reply(exchange):
    exchange.decided(ALLOW, Timing())
    assert exchange.history("four") == (*TALK, Message("assistant", "four"))


def test_history_leaves_a_refused_turn_out(exchange):
    exchange.decided(BLOCK, Timing())
    assert exchange.history("No.") == TALK[:3]


def test_history_is_about_the_messages_of_the_caller_and_not_about_rephrased_ones(exchange):
    exchange.decided(Decision(status="evaluated", action="rephrase"), Timing())
    exchange.retry([Message("user", "other words")], frozenset())
    exchange.decided(ALLOW, Timing())
    assert exchange.messages == (Message("user", "other words"),)
    assert exchange.history("four") == (*TALK, Message("assistant", "four"))


def test_a_retry_lifts_policies_for_this_request_alone(exchange):
    exchange.retry(TALK, frozenset({"p"}))
    exchange.retry(TALK, frozenset({"q"}))
    assert exchange.facts.waived == {"p", "q"}
    assert exchange.request.facts.waived == frozenset()


def test_the_decision_carries_each_warning_once_and_those_that_came_later(exchange):
    exchange.warn("cut")
    exchange.decided(ALLOW, Timing())
    exchange.warn("cut")
    exchange.warn("action failed")
    assert exchange.decisions[0].warnings == (*ALLOW.warnings, "cut")
    assert exchange.decision.warnings == ("cut", "action failed")


def test_an_exchange_begins_with_what_the_caller_gave(tmp_path):
    active = loaded(world(tmp_path), rule())
    made = Exchange.of(request("chat", TALK, tags=["a"], conversation="c"), active)
    assert (made.messages, made.facts, made.policies) == (TALK, made.request.facts, active)
    assert (made.facts.tags, made.id) == ({"a"}, made.request.id)


def test_a_retry_without_a_waiver_lifts_nothing(exchange):
    exchange.retry([Message("user", "other")], frozenset())
    assert (exchange.messages, exchange.facts) == ((Message("user", "other"),), exchange.request.facts)


def test_the_total_time_is_in_milliseconds_and_keeps_the_other_times(exchange):
    exchange.decided(ALLOW, Timing(guard=1.0, prefill=2.0, queue=3.0))
    before = (perf_counter() - exchange.request.start) * 1e3
    found = exchange.total()
    after = (perf_counter() - exchange.request.start) * 1e3
    assert before <= found.total <= after
    assert (found.guard, found.prefill, found.queue) == (1.0, 2.0, 3.0)


def test_a_refused_conversation_without_a_user_turn_leaves_no_history(tmp_path):
    made = Exchange.of(request("chat", [Message("system", "Be evil.")]), loaded(world(tmp_path), rule()))
    made.decided(BLOCK, Timing())
    assert made.history("No.") == ()
