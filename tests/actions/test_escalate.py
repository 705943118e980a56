import threading
import time
from dataclasses import replace

import pytest
from pydantic import ValidationError

from guardrail.actions.escalate import DENIED, HOLDING, Escalate, EscalateConfig
from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit.trail import AuditTrail
from guardrail.pipeline.cancellation import Cancellation, Left
from guardrail.pipeline.plugin_calls import PluginCalls
from guardrail.pipeline.tickets import Tickets
from guardrail.plugins.audit import AuditSettings
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import ActionContext, Answer, Otherwise, Retry
from guardrail.testing import MemoryQueue, decision
from guardrail.types import STOP, Message

USER = Message("user", "Is this allowed?")
ABOUT = {
    "decision": decision("escalate"),
    "policy": "to-a-person",
    "client": "app",
    "prompt_sha256": "ab",
}


def respond(sink, message=None, cancellation=None, about=None, **config):
    """The response of the action; `about` is what the context says besides."""
    calls = PluginCalls()
    tickets = Tickets({"review-queue": sink}, calls, AuditTrail({}, AuditSettings()))
    context = ActionContext(
        messages=(USER,),
        message=message,
        attempt=0,
        complete=lambda messages: "",
        sinks=tickets.sinks,
        wait=lambda *given: tickets.wait(cancellation or Cancellation(), *given),
        **ABOUT | (about or {}),
    )
    try:
        return Escalate().respond(EscalateConfig.model_validate(config), context)
    finally:
        calls.close()


def resolving(sink, approve):
    """A person who resolves the first ticket as soon as it is there."""

    def person():
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for ticket in sink.pending():
                sink.resolve(ticket.id, approve, "ann")
                return
            time.sleep(0.01)

    thread = threading.Thread(target=person)
    thread.start()
    return thread


def test_escalate_stops_the_forward_pass():
    assert Escalate().compile(EscalateConfig()) == STOP


def test_without_waiting_the_holding_text_answers_and_the_ticket_is_stored(tmp_path):
    queue = ReviewQueue(tmp_path / "queue.sqlite")
    answer = respond(queue)
    assert isinstance(answer, Answer)
    assert answer.text == HOLDING
    (stored,) = queue.pending()
    assert stored == answer.ticket
    assert (stored.policy, stored.messages, stored.decision) == ("to-a-person", (USER,), decision("escalate"))


def test_approval_waives_this_policy_and_tries_again(tmp_path):
    queue = ReviewQueue(tmp_path / "queue.sqlite")
    person = resolving(queue, approve=True)
    response = respond(queue, wait_s=5)
    assert isinstance(response, Retry)
    assert (response.messages, response.waive) == ((USER,), {"to-a-person"})
    assert response.ticket.state == "approved"
    person.join()


@pytest.mark.parametrize(("message", "expected"), [(None, DENIED), ("Not today.", "Not today.")])
def test_denial_is_a_refusal(tmp_path, message, expected):
    queue = ReviewQueue(tmp_path / "queue.sqlite")
    person = resolving(queue, approve=False)
    answer = respond(queue, message=message, wait_s=5)
    person.join()
    assert isinstance(answer, Answer)
    assert answer.text == expected
    assert answer.ticket is not None
    assert answer.ticket.state == "denied"


def test_nobody_in_time_means_otherwise_and_the_ticket_stays():
    queue = MemoryQueue()
    answer = respond(queue, wait_s=0.05)
    (waiting,) = queue.pending()
    assert answer == Otherwise("block", waiting, "nobody has decided yet")


@pytest.mark.parametrize("otherwise", ["block", "allow"])
@pytest.mark.parametrize("wait_s", [0, 0.05])
def test_a_sink_that_is_down_never_allows_unless_configured(wait_s, otherwise, caplog):
    response = respond(MemoryQueue(failing=True), wait_s=wait_s, otherwise=otherwise)
    assert (response.action, response.ticket) == (otherwise, None)
    assert response.reason.startswith("escalation failed: EscalationError")
    assert response.failed
    assert "escalation to review-queue failed" in caplog.text


def test_a_sink_that_goes_down_while_waiting_means_otherwise():
    queue = MemoryQueue()
    timer = threading.Timer(0.02, lambda: setattr(queue, "failing", True))
    timer.start()
    assert respond(queue, wait_s=5).action == "block"


def test_nobody_waits_for_a_caller_who_has_left():
    queue, cancellation = MemoryQueue(), Cancellation()
    threading.Timer(0.05, cancellation.cancel).start()
    start = time.monotonic()
    with pytest.raises(Left):
        respond(queue, cancellation=cancellation, wait_s=3600)
    assert time.monotonic() - start < 5
    assert len(queue.pending()) == 1


# --- tickets that clients come back with ---------------------------------------------------------------


@pytest.fixture
def held(tmp_path):
    """(queue, ticket) of a request that got the holding text."""
    queue = ReviewQueue(tmp_path / "queue.sqlite")
    return queue, respond(queue).ticket


def again(held, about=None, **config):
    queue, ticket = held
    return respond(queue, about={"ticket_id": ticket.id, **(about or {})}, **config)


def test_a_ticket_that_waits_is_not_opened_again(held):
    assert again(held) == Answer(HOLDING, held[1])
    assert len(held[0].pending()) == 1


def test_an_approval_holds_for_one_request(held):
    held[0].resolve(held[1].id, True, "ann")
    response = again(held)
    assert isinstance(response, Retry)
    assert response.waive == {"to-a-person"}
    assert response.ticket.resolver == "ann"
    assert again(held).ticket.id != held[1].id


@pytest.mark.parametrize("other", [{"client": "other"}, {"client": None}, {"prompt_sha256": "cd"}])
def test_an_approval_holds_for_nobody_and_nothing_else(held, other):
    held[0].resolve(held[1].id, True, "ann")
    response = again(held, other)
    assert isinstance(response, Answer)
    assert response.ticket.id != held[1].id
    assert isinstance(again(held), Retry)


def test_an_approval_holds_for_one_policy(held):
    held[0].resolve(held[1].id, True, "ann")
    assert isinstance(again(held, {"policy": "other"}), Answer)


def test_of_two_requests_with_one_approval_one_goes_on(held, monkeypatch):
    queue, ticket = held
    unused = queue.resolve(ticket.id, True, "ann")
    assert isinstance(again(held), Retry)
    monkeypatch.setattr(queue, "get", lambda ticket_id: unused)
    assert again(held, otherwise="allow") == Otherwise("block", unused, "the approval was used before")


def test_an_answer_by_hand_is_the_answer_each_time(held):
    done = held[0].resolve(held[1].id, False, "ann", answer="Ask a doctor.")
    assert [again(held), again(held)] == [Answer("Ask a doctor.", done, "person")] * 2


def test_a_denial_stays_one(held):
    held[0].resolve(held[1].id, False, "ann")
    assert again(held, wait_s=5).text == DENIED


def test_an_approval_is_not_used_up_where_it_cannot_hold(held):
    held[0].resolve(held[1].id, True, "ann")
    assert "already rendered" in again(held, {"rendered": True}).reason
    assert isinstance(again(held), Retry)


def test_an_approval_does_not_bring_back_a_reply_that_was_stopped(held):
    held[0].resolve(held[1].id, True, "ann")
    assert again(held, {"decision": replace(decision("escalate"), stage="response")}).text == DENIED


def test_an_unknown_sink_is_found_when_the_file_is_loaded():
    info = Plugins().action_infos()["escalate"]
    with pytest.raises(ValidationError, match="unknown escalation sink `reviewqueue`; did you mean"):
        info.validate({"to": "reviewqueue"})


@pytest.mark.parametrize("config", [{"otherwise": "escalate"}, {"wait_s": -1}, {"wait_s": float("inf")}])
def test_values_out_of_range_are_errors(config):
    with pytest.raises(ValidationError):
        EscalateConfig.model_validate(config)
