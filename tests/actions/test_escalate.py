import threading
import time

import pytest
from pydantic import ValidationError

from guardrail.actions.escalate import DENIED, HOLDING, Escalate, EscalateConfig
from guardrail.actions.review_queue import ReviewQueue
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import ActionContext, Answer, Otherwise, Retry
from guardrail.testing import MemoryQueue, decision
from guardrail.types import STOP, Message

USER = Message("user", "Is this allowed?")


def respond(sink, message=None, **config):
    context = ActionContext(
        decision=decision("escalate"),
        messages=(USER,),
        policy="to-a-person",
        message=message,
        attempt=0,
        complete=lambda messages: "",
        sinks={"review-queue": sink},
    )
    return Escalate().respond(EscalateConfig.model_validate(config), context)


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
    assert answer == Otherwise("block", waiting)


@pytest.mark.parametrize("wait_s", [0, 0.05])
def test_a_sink_that_is_down_never_allows_unless_configured(wait_s, caplog):
    assert respond(MemoryQueue(failing=True), wait_s=wait_s) == Otherwise("block")
    assert respond(MemoryQueue(failing=True), wait_s=wait_s, otherwise="allow") == Otherwise("allow")
    assert "review-queue is down" in caplog.text


def test_a_sink_that_goes_down_while_waiting_means_otherwise():
    queue = MemoryQueue()
    timer = threading.Timer(0.02, lambda: setattr(queue, "failing", True))
    timer.start()
    assert respond(queue, wait_s=5) == Otherwise("block")


def test_an_unknown_sink_is_found_when_the_file_is_loaded():
    info = Plugins().action_infos()["escalate"]
    with pytest.raises(ValidationError, match="unknown escalation sink `reviewqueue`; did you mean"):
        info.validate({"to": "reviewqueue"})


@pytest.mark.parametrize("config", [{"otherwise": "escalate"}, {"wait_s": -1}, {"wait_s": float("inf")}])
def test_values_out_of_range_are_errors(config):
    with pytest.raises(ValidationError):
        EscalateConfig.model_validate(config)
