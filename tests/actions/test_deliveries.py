"""Tickets that webhooks are told of: stored first, sent again and again, never lost, and in nobody's way."""

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from endpoints import Response, failed, script, server
from patience import wait_for

from guardrail.actions import courier, deliveries
from guardrail.actions.escalate import HOLDING, Escalate, EscalateConfig
from guardrail.actions.review_queue import ReviewQueue
from guardrail.cli import run
from guardrail.plugins.protocols import ActionContext
from guardrail.testing import decision, ticket, tiny_guard
from guardrail.types import Delivery, Message

OK = Response(200)
SECRET = "a secret of 20 bytes"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, a secret, and a queue of its own."""
    monkeypatch.setattr(deliveries, "FIRST_S", 0.02)
    monkeypatch.setattr(courier, "LOOK_S", 0.05)
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "queue.sqlite"))


@pytest.fixture
def queue():
    made = ReviewQueue()
    yield made
    made.close()


def told(url, ticket_id="t-1", **more):
    return replace(ticket(ticket_id), delivery=Delivery(url=url, secret_env="SECRET", **more))


def state(queue, ticket_id="t-1"):
    return queue.get(ticket_id).delivery.state


def context(queue):
    return ActionContext(
        decision=decision("escalate"),
        messages=(Message("user", "May I?"),),
        policy="to-a-person",
        message=None,
        attempt=0,
        complete=lambda messages: "",
        sinks={"review-queue": queue},
    )


def respond(queue, **to):
    config = {"to": {"webhook": {"secret_env": "SECRET", **to}}}
    return Escalate().respond(EscalateConfig.model_validate(config), context(queue))


@pytest.mark.parametrize("send_text", [False, True])
def test_a_ticket_is_delivered_with_its_text_only_if_asked(queue, send_text):
    with server(script(OK)) as (url, seen):
        answer = respond(queue, url=url, send_text=send_text)
        assert wait_for(lambda: state(queue, answer.ticket.id) == "delivered")
    (body,) = seen.bodies
    assert (answer.text, body["type"]) == (HOLDING, "guardrail.ticket.opened")
    assert (body["data"]["id"], body["data"]["state"]) == (answer.ticket.id, "pending")
    assert seen.headers[0]["webhook-id"] == answer.ticket.id
    assert ("May I?" in json.dumps(body)) == send_text


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(queue):
    with server(script(failed(500), failed(404), OK)) as (url, seen):
        queue.open(told(url))
        assert wait_for(lambda: state(queue) == "delivered")
    assert [headers["webhook-id"] for headers in seen.headers] == ["t-1"] * 3
    first, second = (b - a for a, b in zip(seen.times, seen.times[1:], strict=False))
    assert (first >= 0.01, second >= 0.02) == (True, True)


def test_the_receiver_says_when_to_come_back_for_all_its_tickets(queue):
    with server(script(failed(503, Retry_After="1"), OK)) as (url, seen):
        queue.open(told(url))
        assert wait_for(lambda: queue.get("t-1").delivery.failure)
        queue.open(told(url, "t-2"))
        assert wait_for(lambda: len(seen.bodies) >= 1 and state(queue, "t-1") == "delivered")
        assert wait_for(lambda: state(queue, "t-2") == "delivered")
    retried = [
        at for at, headers in zip(seen.times, seen.headers, strict=True) if headers["webhook-id"] == "t-1"
    ]
    assert retried[1] - retried[0] >= 0.9


def test_a_dead_letter_is_kept_shown_and_sent_again(queue, monkeypatch, caplog, capsys):
    monkeypatch.setattr(deliveries, "ATTEMPTS", 2)
    with (
        server(script(failed(500), failed(500), failed(500), OK)) as (url, seen),
        caplog.at_level(logging.ERROR),
    ):
        queue.open(told(url))
        assert wait_for(lambda: state(queue) == "dead")
        queue.close()
        assert "ticket t-1 was not delivered: the webhook HTTP 500" in caplog.text
        assert run(["audit", "deliveries"]) == 0
        shown = capsys.readouterr().out
        assert "dead" in shown
        assert "HTTP 500" in shown
        assert run(["audit", "deliveries", "--retry", "--json"]) == 1
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["delivery"]["state"], row["delivery"]["attempts"]) == ("waiting", 1)
        assert run(["audit", "deliveries", "--retry", "--ticket", "t-1"]) == 0
        assert "every webhook has its tickets" in capsys.readouterr().out
    assert len(seen.bodies) == 4
    assert SECRET not in caplog.text


def test_a_receiver_that_is_not_there_holds_nobody_up_and_loses_nothing(queue):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        start = time.monotonic()
        assert respond(queue, url=url).text == HOLDING
        assert time.monotonic() - start < 5
        assert wait_for(lambda: (queue.pending()[0].delivery.failure or "").startswith("cannot be reached"))
    assert state(queue, queue.pending()[0].id) == "waiting"


def test_a_receiver_that_hangs_is_given_up(queue):
    with server(script(Response(200, delay=1.0), OK)) as (url, seen):
        queue.open(told(url, timeout_s=0.2))
        assert wait_for(lambda: state(queue) == "delivered")
    assert len(seen.bodies) == 2


def test_without_its_secret_nothing_is_sent(queue, monkeypatch):
    monkeypatch.delenv("SECRET")
    with server(script(OK)) as (url, seen):
        queue.open(told(url))
        assert wait_for(lambda: "$SECRET must hold" in (queue.get("t-1").delivery.failure or ""))
        queue.close()
    assert seen.bodies == []


def test_a_process_has_a_delivery_alone_until_it_has_had_its_time(queue, monkeypatch):
    monkeypatch.setattr(queue._courier, "wake", lambda: None)
    queue.open(told(NOWHERE))
    other = ReviewQueue(queue.path)
    assert deliveries.take(queue).delivery.attempts == 1
    assert deliveries.take(other) is None
    monkeypatch.setattr(deliveries, "LEASE_S", -60.0)
    deliveries.renew(queue)
    assert deliveries.take(queue) is not None
    assert deliveries.take(other) is not None


@pytest.mark.parametrize("back_s", [3600, 1e8])
def test_a_clock_that_is_set_back_puts_off_no_delivery(queue, monkeypatch, back_s):
    monkeypatch.setattr(queue._courier, "wake", lambda: None)
    for ticket_id in ("t-1", "t-2"):
        queue.open(told(NOWHERE, ticket_id))
    first = deliveries.take(queue)
    deliveries.failed(queue, first, "nobody is there", retry_after=50.0)
    assert deliveries.take(queue) is None
    now = time.time() - back_s
    monkeypatch.setattr(deliveries.time, "time", lambda: now)
    assert deliveries.next_due(queue) == 0
    again = deliveries.take(queue)
    deliveries.failed(queue, again, "nobody is there", retry_after=50.0)
    assert deliveries.take(queue) is None
    assert now + 50 <= deliveries.next_due(queue) <= now + 51


def test_a_guard_goes_on_with_what_an_earlier_process_left(queue, tmp_path, monkeypatch):
    with server(script(OK)) as (url, seen):
        monkeypatch.setattr(queue._courier, "wake", lambda: None)
        queue.open(told(url))
        to = {"webhook": {"url": url, "secret_env": "SECRET"}}
        rule = {
            "id": "p",
            "trait": "evil",
            "layer": 2,
            "threshold": {"raw": -1e6},
            "action": {"escalate": {"to": to}},
        }
        with tiny_guard(tmp_path, {"policies": [rule]}) as guard:
            assert wait_for(lambda: state(queue) == "delivered")
            reply = guard.chat("Hello")
            assert wait_for(lambda: state(queue, reply.ticket_id) == "delivered")
    assert [headers["webhook-id"] for headers in seen.headers] == ["t-1", reply.ticket_id]


# --- kills, full disks, locks, damage -----------------------------------------------------------------

OPENING = """
import sys
from guardrail.actions.review_queue import ReviewQueue
from guardrail.testing.fakes import ticket
from guardrail.types import Delivery
from dataclasses import replace
queue = ReviewQueue(sys.argv[1])
for i in range(100_000):
    queue.open(replace(ticket(f"t-{i}", "x" * 2000), delivery=Delivery(url=sys.argv[2], secret_env="SECRET")))
    print(i, flush=True)
"""


def test_every_ticket_that_somebody_was_told_of_survives_a_kill(queue):
    for _ in range(2):
        queue.path.unlink(missing_ok=True)
        command = [sys.executable, "-c", OPENING, str(queue.path), NOWHERE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            told_of = [int(process.stdout.readline()) for _ in range(20)]
            process.send_signal(signal.SIGKILL)
            told_of += [int(line) for line in process.stdout.read().split()]
        kept = {waiting.id for waiting in deliveries.undelivered(queue)}
        assert {f"t-{i}" for i in told_of} <= kept


FULL = """
import resource, sys
from guardrail.actions.escalate import Escalate, EscalateConfig
from guardrail.actions.review_queue import ReviewQueue
from guardrail.plugins.protocols import ActionContext, Answer
from guardrail.testing.fakes import decision
from guardrail.types import Message
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
queue, stored = ReviewQueue(sys.argv[1]), 0
for i in range(1000):
    context = ActionContext(
        decision=decision("escalate"), messages=(Message("user", "x" * 5000),), policy="p", message=None,
        attempt=0, complete=str, sinks={"review-queue": queue},
    )
    response = Escalate().respond(EscalateConfig(), context)
    if not isinstance(response, Answer):
        print(response.action, response.reason)
        break
    print(response.ticket.id)
"""


def test_a_full_disk_is_a_block_with_its_reason_and_loses_no_ticket(queue):
    command = [sys.executable, "-c", FULL, str(queue.path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    *ids, last = found.stdout.splitlines()
    assert last.startswith("block escalation failed: EscalationError")
    assert ids
    assert {waiting.id for waiting in queue.pending()} == set(ids)


@pytest.mark.parametrize("otherwise", ["block", "allow"])
def test_a_queue_that_somebody_holds_is_given_up(queue, monkeypatch, otherwise):
    monkeypatch.setattr("guardrail.actions.review_queue.BUSY_S", 0.1)
    queue.open(ticket())
    with sqlite3.connect(queue.path, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        response = Escalate().respond(EscalateConfig(otherwise=otherwise), context(queue))
    holder.close()
    assert response.action == otherwise
    assert "EscalationError" in response.reason
    assert len(queue.pending()) == 1


def test_a_damaged_queue_stops_nobody_and_is_told(queue, caplog):
    queue.path.parent.mkdir(exist_ok=True)
    queue.path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert respond(queue, url=NOWHERE).action == "block"
    queue.resume()
    assert wait_for(lambda: "webhooks are not delivered" in caplog.text)
    assert run(["audit", "deliveries"]) == 2
