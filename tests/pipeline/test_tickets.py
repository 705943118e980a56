"""Tickets of a guard: time limits of sinks, people who let requests wait, and what their decisions change."""

import asyncio
import os
import threading

import pytest
from patience import wait_for
from tiny import NEVER, guard, policy

from guardrail.actions.escalate import DENIED, HOLDING
from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit import history, read
from guardrail.errors import AuditError, EscalationError
from guardrail.pipeline import tickets as module
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import MemoryAudit, MemoryQueue, ticket

GREEDY = {"temperature": 0, "max_new_tokens": 4}
HELLO = "Hello there"


@pytest.fixture(autouse=True)
def queue(tmp_path, monkeypatch):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "queue.sqlite"))
    return ReviewQueue()


def escalates(when=None, **config):
    return policy({"escalate": config}, **({"when": when} if when else {}))


class Holding(MemoryQueue):
    """A sink whose `open` hangs until its gate opens; as a plugin."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()

    def open(self, ticket):
        self.gate.wait()
        super().open(ticket)

    @hookimpl
    def guardrail_escalation_sinks(self):
        return [self]


@pytest.fixture
def holding():
    made = Holding()
    yield made
    made.gate.set()


def later(function, *arguments, **keys):
    """Calls a function on a thread; (thread, what it returned)."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments, **keys)))
    thread.start()
    return thread, found


# --- what waits holds nobody else ---------------------------------------------------------------------


def test_requests_go_on_while_one_waits_for_a_person(tmp_path, queue):
    rules = escalates({"tags": ["ask"]}, wait_s=60)
    with guard(tmp_path, rules) as made:
        person, found = later(made.chat, HELLO, tags=["ask"], **GREEDY)
        assert wait_for(lambda: made.tickets.waiting == 1)
        assert [made.chat(HELLO, **GREEDY).outcome for _ in range(3)] == ["answered"] * 3
        made.tickets.resolve(queue.pending()[0].id, True, "ann")
        person.join()
        assert made.tickets.waiting == 0
    assert found[0].outcome == "answered"


def test_a_sink_that_hangs_is_given_up_and_holds_nobody_else(tmp_path, holding, monkeypatch):
    monkeypatch.setattr(module, "LIMIT_S", 0.2)
    rules = policy({"escalate": {"to": "memory-queue"}}, when={"tags": ["ask"]}, message="No.")
    with guard(tmp_path, rules, options={"plugins": [holding]}) as made:
        person, found = later(made.chat, HELLO, tags=["ask"])
        assert made.chat(HELLO, **GREEDY).outcome == "answered"
        person.join()
        assert (found[0].text, found[0].outcome, found[0].ticket_id) == ("No.", "blocked", None)
        warning = found[0].decision.warnings[-1]
        assert "block takes over: escalation failed" in warning
        assert "did not answer in time" in warning
        holding.gate.set()
        assert wait_for(lambda: made.chat(HELLO, tags=["ask"]).outcome == "escalated")


def test_more_than_so_many_do_not_wait(tmp_path, queue, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    with guard(tmp_path, escalates(wait_s=60)) as made:
        person, found = later(made.chat, HELLO)
        assert wait_for(lambda: made.tickets.waiting)
        second = made.chat(HELLO)
        assert (second.outcome, made.ticket(second.ticket_id).state) == ("blocked", "pending")
        assert "1 requests wait for a person already" in second.decision.warnings[-1]
        for waiting in queue.pending():
            made.tickets.resolve(waiting.id, False, "ann")
        person.join()
    assert found[0].text == DENIED


@pytest.mark.parametrize("end", [lambda made: made.close(), lambda made: made.tickets.end_waits()])
def test_a_program_that_stops_ends_the_wait_and_keeps_the_ticket(tmp_path, queue, end):
    with guard(tmp_path, escalates(wait_s=600)) as made:
        person, found = later(made.chat, HELLO)
        assert wait_for(lambda: made.tickets.waiting)
        end(made)
        person.join(20)
    assert found[0].outcome == "blocked"
    assert [waiting.id for waiting in queue.pending()] == [found[0].ticket_id]


# --- who decides, and what is written down ------------------------------------------------------------


def test_who_decides_is_in_the_log_and_nobody_decides_twice(tmp_path, queue):
    log = tmp_path / "log.jsonl"
    with guard(tmp_path, escalates(), audit={"jsonl": str(log)}) as made:
        found = made.chat(HELLO, client="app").ticket_id
        assert [waiting.client for waiting in made.tickets.pending()] == ["app"]
        made.tickets.resolve(found, False, "ann", "too risky")
        with pytest.raises(EscalationError, match="already denied by ann"):
            made.tickets.resolve(found, True, "bob")
        with pytest.raises(EscalationError, match="no ticket t-9"):
            made.tickets.resolve("t-9", True, "bob")
    reviews = [record for record in history(log) if hasattr(record, "reviewer")]
    assert [(r.ticket_id, r.state, r.reviewer) for r in reviews] == [(found, "denied", "ann")]


def test_a_decision_that_cannot_be_written_down_is_told(tmp_path, queue):
    class Plugin(MemoryAudit):
        def reviewed(self, review):
            raise OSError("no space left on device")

        @hookimpl
        def guardrail_audit_sinks(self, settings):
            return [self]

    queue.open(ticket())
    with (
        guard(tmp_path, escalates(), options={"plugins": [Plugin()]}) as made,
        pytest.raises(AuditError, match="audit sink `memory`"),
    ):
        made.tickets.resolve("t-1", True, "ann")


def test_tickets_of_all_sinks_are_listed_by_age(tmp_path, queue, holding):
    holding.gate.set()
    holding.open(ticket("t-2"))
    queue.open(ticket("t-3"))
    with guard(tmp_path, escalates(), options={"plugins": [holding]}) as made:
        assert [waiting.id for waiting in made.tickets.pending()] == ["t-2", "t-3"]
        assert made.tickets.resolve("t-2", True, "ann").state == "approved"
        holding.failing = True
        with pytest.raises(EscalationError, match="sink `memory-queue`"):
            made.tickets.pending()


# --- coming back with a ticket ------------------------------------------------------------------------


def test_an_approved_prompt_is_answered_once_by_the_model(tmp_path, queue):
    log = tmp_path / "log.jsonl"
    with guard(tmp_path, escalates(), audit={"jsonl": str(log)}) as made:
        held = made.chat(HELLO, client="app")
        assert made.chat(HELLO, client="app", ticket=held.ticket_id).ticket_id == held.ticket_id
        made.tickets.resolve(held.ticket_id, True, "ann")
        assert made.chat("Something else", client="app", ticket=held.ticket_id).text == HOLDING
        assert made.chat(HELLO, client="other", ticket=held.ticket_id).text == HOLDING
        stream = made.stream(HELLO, client="app", ticket=held.ticket_id, **GREEDY)
        assert "".join(stream) == stream.reply.text
        assert (stream.reply.outcome, stream.reply.new_tokens) == ("answered", 4)
        assert "test: lifted after escalate" in stream.reply.decision.warnings
        assert made.chat(HELLO, client="app", ticket=held.ticket_id).text == HOLDING
    outcomes = [(record.outcome, record.reviewer, record.lifted) for record in read(log)]
    held = ("escalated", None, ())
    assert outcomes == [held] * 4 + [("answered", "ann", ("test",)), held]


def test_an_approval_lifts_no_other_policy(tmp_path, queue):
    other = policy("block", NEVER, id="other", message="Never.")
    with guard(tmp_path, escalates(), other) as made:
        held = made.chat(HELLO)
        made.tickets.resolve(held.ticket_id, True, "ann")
        assert made.chat(HELLO, ticket=held.ticket_id, **GREEDY).outcome == "answered"
    blocking = policy("block", id="other", message="Never.")
    with guard(tmp_path, escalates(wait_s=20), {**blocking, "when": {"min_turns": 1}}) as made:
        assert made.chat(HELLO).text == "Never."


def test_an_answer_by_hand_is_part_of_the_conversation(tmp_path, queue):
    log = tmp_path / "log.jsonl"
    with guard(tmp_path, escalates(), audit={"jsonl": str(log)}) as made:
        held = made.chat(HELLO)
        made.tickets.resolve(held.ticket_id, False, "ann", answer="Ask a doctor.")
        reply = made.chat(HELLO, ticket=held.ticket_id)
    assert (reply.text, reply.outcome, reply.answered_by) == ("Ask a doctor.", "escalated", "person")
    assert [message.content for message in reply.history] == [HELLO, "Ask a doctor."]
    assert held.history == ()
    record = list(read(log))[-1]
    assert (record.answered_by, record.reviewer) == ("person", "ann")


def test_a_closed_guard_says_so(tmp_path, queue):
    with guard(tmp_path, escalates()) as made:
        made.close()
        with pytest.raises(EscalationError, match="the guard is closed"):
            made.tickets.get("t-1")


def test_tasks_that_wait_for_a_person_leave_threads_to_others(tmp_path, queue):
    """To other tasks of the guard, and to all else that the program does in threads of asyncio."""
    few = min(32, (os.cpu_count() or 1) + 4)

    async def ask(made):
        waits = [asyncio.create_task(made.achat(HELLO, tags=["ask"])) for _ in range(few + 2)]
        while made.tickets.waiting < len(waits):
            await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(lambda: 1) == 1
            assert (await made.achat(HELLO, **GREEDY)).outcome == "answered"
            assert [piece async for piece in made.astream(HELLO, **GREEDY)]
        made.tickets.end_waits()
        return await asyncio.gather(*waits)

    with guard(tmp_path, escalates({"tags": ["ask"]}, wait_s=600)) as made:
        assert {reply.outcome for reply in asyncio.run(ask(made))} == {"blocked"}
