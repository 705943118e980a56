"""What audit records and replies hold at every end that a request can have."""

from dataclasses import replace

import pytest
from worlds import loaded, rule, world

from guardrail.engines import Completion
from guardrail.errors import PromptError
from guardrail.files.records import prompt_sha256, text_sha256
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.recorder import Recorder
from guardrail.pipeline.request import request
from guardrail.plugins.audit import AuditRecord
from guardrail.types import Decision, Message, Timing

TALK = (Message("user", "1 + 1?"),)
ALLOW = Decision(status="evaluated")
BLOCK = Decision(status="error", action="block", would_action="block", policy="p", error="no score")
STOPPED = replace(BLOCK, stage="response", error="no reading", token=2)
TOO_LONG = "PromptError: too long"
TIMES = Timing(guard=1.0, prefill=2.0, queue=3.0)


class Trail:
    """Keeps what is written."""

    def __init__(self):
        self.decisions, self.outcomes = [], []

    def decided(self, record):
        self.decisions.append(record)

    def finished(self, record):
        self.outcomes.append(record)


def made(folder, **audit):
    active = loaded(world(folder), rule(), audit=audit)
    exchange = Exchange.of(request("stream", TALK, tags=["b", "a"], conversation="c"), active)
    exchange.prompt_tokens, exchange.ticket_id = 7, "t"
    return exchange


@pytest.fixture
def trail():
    return Trail()


@pytest.fixture
def recorder(trail):
    return Recorder(trail, lambda: "weights")


@pytest.fixture
def exchange(tmp_path):
    return made(tmp_path)


def completion(reply_decision=None):
    return Completion(
        decision=ALLOW, text="two", new_tokens=5, steered_passes=4, reply_decision=reply_decision
    )


def expected(exchange, decision, **fields):
    """The record of the exchange above."""
    return AuditRecord(
        id=exchange.request.id,
        time=exchange.request.time,
        kind="stream",
        decision=decision,
        prompt_sha256=prompt_sha256(TALK),
        prompt_tokens=7,
        conversation="c",
        tags=("a", "b"),
        fingerprint="weights",
        ticket_id="t",
        **fields,
    )


def timeless(value):
    """Without its times, which were measured; they must be there."""
    assert value.timing.total > 0
    made = replace(value, timing=Timing())
    if isinstance(value, AuditRecord):
        assert (value.ended is None) == (value.outcome is None)
        assert value.ended is None or value.ended >= value.time
        made = replace(made, ended=None)
    return made


def test_a_decision_is_recorded_as_it_was_made(recorder, trail, exchange):
    exchange.decided(BLOCK, TIMES)
    recorder.decided(exchange)
    (record,) = trail.decisions
    assert timeless(record) == expected(exchange, BLOCK, error="no score")
    assert replace(record.timing, total=0.0) == TIMES
    assert not exchange.closed


def test_messages_and_text_are_recorded_if_the_policies_say_so(recorder, trail, tmp_path):
    exchange = made(tmp_path, text=True)
    exchange.decided(ALLOW, TIMES)
    recorder.replied(exchange, "two")
    (record,) = trail.outcomes
    assert (record.messages, record.text) == (TALK, "two")


def test_a_check_is_the_latest_decision(recorder, trail, exchange):
    exchange.decided(ALLOW, TIMES)
    exchange.decided(BLOCK, TIMES)
    check = recorder.checked(exchange)
    (record,) = trail.outcomes
    assert timeless(record) == expected(exchange, BLOCK, outcome="checked", attempts=2, error="no score")
    assert (timeless(check).decision, check.audit_id) == (BLOCK, exchange.id)
    assert exchange.closed


def test_an_answer_has_the_counts_of_its_completion(recorder, trail, exchange):
    exchange.decided(ALLOW, TIMES)
    exchange.completion = completion()
    reply = recorder.replied(exchange, "two")
    (record,) = trail.outcomes
    counts = {"new_tokens": 5, "steered_passes": 4, "finish": ("length",)}
    assert timeless(record) == expected(
        exchange, ALLOW, outcome="answered", text_sha256=text_sha256("two"), **counts
    )
    assert (reply.text, reply.outcome, reply.decision) == ("two", "answered", ALLOW)
    assert (reply.new_tokens, reply.steered_passes, reply.ticket_id) == (5, 4, "t")
    assert (reply.history, reply.audit_id) == ((*TALK, Message("assistant", "two")), exchange.id)
    assert replace(reply.timing, total=0.0) == TIMES
    assert exchange.closed


def test_a_refusal_has_no_tokens(recorder, trail, exchange):
    exchange.decided(ALLOW, TIMES)
    exchange.decided(BLOCK, TIMES)
    reply = recorder.replied(exchange, "No.")
    (record,) = trail.outcomes
    assert timeless(record) == expected(
        exchange, BLOCK, outcome="blocked", attempts=2, error="no score", text_sha256=text_sha256("No.")
    )
    assert (reply.new_tokens, reply.steered_passes, reply.reply_decision) == (0, 0, None)
    assert (reply.history, reply.earlier) == ((), (ALLOW,))


def test_a_stopped_reply_is_recorded_with_both_decisions(recorder, trail, exchange):
    exchange.decided(ALLOW, TIMES)
    exchange.completion = completion(STOPPED)
    reply = recorder.replied(exchange, "No.")
    (record,) = trail.outcomes
    assert (record.decision, record.reply_decision, record.error) == (ALLOW, STOPPED, "no reading")
    assert (reply.decision, reply.reply_decision, reply.outcome) == (ALLOW, STOPPED, "blocked")


@pytest.mark.parametrize(
    ("decisions", "pending", "outcome"),
    [
        ([ALLOW], True, "answered"),
        ([BLOCK], False, "blocked"),
        ([BLOCK], True, "escalated"),
        ([BLOCK, ALLOW], False, "answered"),
        ([replace(BLOCK, action="rephrase"), ALLOW], False, "rephrased"),
        ([replace(BLOCK, action="rephrase")], False, "blocked"),
    ],
)
def test_the_outcome_follows_from_the_decisions(recorder, exchange, decisions, pending, outcome):
    for decision in decisions:
        exchange.decided(decision, TIMES)
    assert recorder.replied(exchange, "text", pending).outcome == outcome


def test_a_late_decision_does_not_replace_the_one_that_was_answered(recorder, trail, exchange):
    exchange.decided(BLOCK, TIMES)
    recorder.late(exchange, ALLOW)
    (record,) = trail.outcomes
    assert timeless(record) == expected(exchange, ALLOW, outcome="late")
    assert exchange.decision == BLOCK


def test_a_request_that_ends_before_its_decision_is_recorded_as_a_block(recorder, trail, exchange):
    recorder.ended(exchange, "error", PromptError("too long"))
    (record,) = trail.outcomes
    unread = Decision(status="not_evaluated", action="block", would_action="block", error=TOO_LONG)
    assert timeless(record) == expected(exchange, unread, outcome="error", attempts=0, error=TOO_LONG)
    assert exchange.closed


def test_a_request_that_ends_after_its_decision_keeps_it(recorder, trail, exchange):
    exchange.decided(BLOCK, TIMES)
    exchange.decided(ALLOW, TIMES)
    recorder.ended(exchange, "cancelled")
    (record,) = trail.outcomes
    assert timeless(record) == expected(exchange, ALLOW, outcome="cancelled", attempts=2)


def test_what_fails_in_the_middle_closes_the_records_that_are_open(recorder, trail, tmp_path):
    first, second = made(tmp_path), made(tmp_path)
    first.decided(ALLOW, TIMES)
    recorder.replied(first, "two")
    with pytest.raises(KeyError), recorder.closing([first, second]):
        raise KeyError("x")
    assert [(record.id, record.outcome, record.error) for record in trail.outcomes] == [
        (first.id, "answered", None),
        (second.id, "error", "KeyError"),
    ]
