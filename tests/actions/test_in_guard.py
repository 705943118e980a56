"""Actions, plugins and audit logs at work in a real guard on a tiny model."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit import events, read, verify
from guardrail.errors import AuditError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import NoConfig, Otherwise
from guardrail.testing import tiny_guard
from guardrail.types import Message, SteerSpec

ALWAYS, NEVER = {"raw": -1e6}, {"raw": 1e6}


def policy(action, threshold=ALWAYS, **more):
    return {"id": "p", "trait": "evil", "layer": 2, "threshold": threshold, "action": action, **more}


def scored(action, threshold=0.5, **more):
    """A policy on the share of capital letters."""
    return {"id": "p", "trait": "shouting", "threshold": threshold, "action": action, **more}


class Shouting:
    name = "shouting"

    def score(self, messages):
        text = "".join(message.content for message in messages if message.role == "user")
        if not text.isalpha():
            raise ValueError("cannot read this")
        return sum(c.isupper() for c in text) / len(text)


class Whisper:
    name = "whisper"

    def rephrase(self, messages, instruction, complete):
        return [Message(m.role, m.content.lower()) for m in messages]


class Sample:
    """A plugin with a scorer and a rephraser."""

    @hookimpl
    def guardrail_scorers(self):
        return [Shouting()]

    @hookimpl
    def guardrail_rephrasers(self):
        return [Whisper()]


class Reviewer:
    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    def guardrail_review(self, decision):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "queue.sqlite"))
    return ReviewQueue()


def chat(tmp_path, *policies, text="HELLO", plugins=(), **file):
    with tiny_guard(tmp_path, {"policies": list(policies), **file}, plugins) as guard:
        return guard.chat(text, max_new_tokens=2)


def resolve_soon(queue, approve):
    def person():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for waiting in queue.pending():
                queue.resolve(waiting.id, approve, "ann")
                return
            time.sleep(0.02)

    thread = threading.Thread(target=person)
    thread.start()
    return thread


# --- escalate ----------------------------------------------------------------------------------------


def test_an_escalated_prompt_gets_the_holding_text_and_a_ticket(tmp_path, queue):
    action = {"escalate": {"holding": "One moment."}}
    with tiny_guard(tmp_path, {"policies": [policy(action)]}) as guard:
        reply = guard.chat("Hello")
        assert reply.text == "One moment."
        assert guard.ticket(reply.ticket_id).messages == (Message("user", "Hello"),)
        queue.resolve(reply.ticket_id, True, "ann")
        assert guard.ticket(reply.ticket_id).state == "approved"


def test_approval_in_time_lets_the_model_answer(tmp_path, queue):
    person = resolve_soon(queue, approve=True)
    reply = chat(tmp_path, policy({"escalate": {"wait_s": 20}}))
    person.join()
    assert (reply.decision.action, reply.new_tokens) == ("allow", 2)
    assert [decision.action for decision in reply.earlier] == ["escalate"]


def test_approval_waives_one_policy_and_no_other(tmp_path, queue):
    person = resolve_soon(queue, approve=True)
    escalate = policy({"escalate": {"wait_s": 20}})
    reply = chat(tmp_path, escalate, policy({"rephrase": {}}, message="No.") | {"id": "other"})
    person.join()
    assert (reply.text, reply.decision.policy) == ("No.", "other")


def test_denial_is_a_refusal(tmp_path, queue):
    person = resolve_soon(queue, approve=False)
    reply = chat(tmp_path, policy({"escalate": {"wait_s": 20}}, message="A person said no."))
    person.join()
    assert reply.text == "A person said no."
    assert reply.new_tokens == 0


@pytest.mark.parametrize(("otherwise", "tokens"), [("block", 0), ("allow", 2)])
def test_a_queue_that_is_down_blocks_unless_the_policy_says_allow(tmp_path, monkeypatch, otherwise, tokens):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path))
    reply = chat(tmp_path, policy({"escalate": {"otherwise": otherwise}}))
    assert reply.new_tokens == tokens


# --- rephrase ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["instruction", "model"])
def test_rephrasing_that_never_helps_ends_in_otherwise(tmp_path, by):
    reply = chat(tmp_path, policy({"rephrase": {"by": by}}, message="Still no."))
    assert (reply.text, reply.new_tokens) == ("Still no.", 0)
    assert len(reply.earlier) <= 1


def test_rephrasing_that_helps_is_answered(tmp_path):
    log = tmp_path / "audit.jsonl"
    action = {"rephrase": {"by": "whisper"}}
    reply = chat(tmp_path, scored(action), plugins=[Sample()], audit={"jsonl": str(log)})
    assert (reply.decision.action, reply.new_tokens) == ("allow", 2)
    assert [decision.action for decision in reply.earlier] == ["rephrase"]
    (record,) = read(log)
    assert record.outcome == "rephrased"
    assert [event.kind for event in events(log)] == ["decision", "decision", "outcome"]


# --- plugins -----------------------------------------------------------------------------------------


def test_a_scorer_that_raises_is_an_error_and_blocks(tmp_path):
    reply = chat(tmp_path, scored("block", message="No."), text="??", plugins=[Sample()])
    assert (reply.text, reply.decision.status) == ("No.", "error")
    assert "scorer `shouting` failed" in reply.decision.error


def test_a_scorer_that_raises_lets_pass_only_where_the_policy_fails_open(tmp_path):
    reply = chat(tmp_path, scored("block", on_error="allow"), text="??", plugins=[Sample()])
    assert (reply.decision.status, reply.decision.action, reply.decision.fail_open) == (
        "error",
        "allow",
        True,
    )
    assert reply.new_tokens == 2


def test_a_reviewer_tightens(tmp_path):
    reply = chat(tmp_path, policy("block", NEVER), plugins=[Reviewer("block")])
    assert (reply.decision.action, reply.new_tokens) == ("block", 0)
    assert "plugin `Reviewer` asked for block" in reply.decision.warnings


def test_a_reviewer_loosens_only_where_the_policy_file_names_it(tmp_path):
    plugins = [Reviewer("allow")]
    assert chat(tmp_path, policy("block"), plugins=plugins).decision.action == "block"
    with tiny_guard(tmp_path, {"policies": [policy("block")], "plugins": ["Reviewer"]}, plugins) as guard:
        reply = guard.chat("Hello", max_new_tokens=2)
    assert (reply.decision.action, reply.new_tokens) == ("allow", 2)


def test_a_reviewer_that_raises_blocks(tmp_path):
    reply = chat(tmp_path, policy("block", NEVER), plugins=[Reviewer(KeyError("x"))])
    assert (reply.decision.status, reply.decision.action) == ("error", "block")
    assert "guardrail_review failed" in reply.decision.error


class Nudge:
    name = "nudge"
    strength = 12
    Config = NoConfig

    def compile(self, config):
        return SteerSpec(operator="ablate")

    def respond(self, config, context):
        return Otherwise("block")


def test_a_plugins_action_steers(tmp_path):
    class Nudging:
        @hookimpl
        def guardrail_actions(self):
            return [Nudge()]

    reply = chat(tmp_path, policy("nudge"), plugins=[Nudging()])
    assert (reply.decision.action, reply.new_tokens) == ("nudge", 2)
    assert reply.steered_passes > 0


# --- audit -------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_means_no_reply(tmp_path):
    log = tmp_path / "audit.jsonl"
    file = {"policies": [policy("block")], "audit": {"jsonl": str(log)}}
    with tiny_guard(tmp_path, file) as guard:
        log.unlink()
        log.symlink_to("/dev/full")
        with pytest.raises(AuditError, match="No space left"):
            guard.chat("Hello", max_new_tokens=2)


def test_a_disk_that_is_full_may_drop_records_where_the_file_says_so(tmp_path):
    file = {"policies": [policy("block", NEVER)], "audit": {"jsonl": "/dev/full", "on_error": "drop"}}
    with tiny_guard(tmp_path, file) as guard:
        assert guard.chat("Hello", max_new_tokens=2).new_tokens == 2
        # that the guard starts, a decision and an outcome
        assert guard.audit.dropped == 3


@pytest.mark.parametrize("keep", [False, True])
def test_no_text_is_kept_unless_the_file_asks(tmp_path, keep):
    log = tmp_path / "audit.jsonl"
    chat(tmp_path, policy("block", NEVER), text="mysecret", audit={"jsonl": str(log), "text": keep})
    assert ("mysecret" in log.read_text()) is keep
    (record,) = read(log)
    assert (record.outcome, record.text is not None) == ("answered", keep)


KILLED = """
import sys
from pathlib import Path
from guardrail.testing import tiny_guard
folder = Path({!r})
policy = dict(id="p", trait="evil", layer=2, threshold=dict(raw=1e6), action="block")
guard = tiny_guard(folder, dict(policies=[policy], audit=dict(jsonl=str(folder / "audit.jsonl"))))
stream = guard.stream("Hello", max_new_tokens=8)
next(iter(stream))
print("streaming", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_kill_while_answering_reads_interrupted(processes, tmp_path):
    with processes.start(KILLED.format(str(tmp_path))) as process:
        assert process.stdout.readline() == "streaming\n"
        os.kill(process.pid, signal.SIGKILL)
    log = Path(tmp_path / "audit.jsonl")
    (record,) = read(log)
    assert (record.outcome, record.decision.action) == ("interrupted", "allow")
    assert verify(log).ok
