"""Another model that answers in this one's place: marked, bounded, and never in silence."""

import json

import pytest
from endpoints import Response, failed, said, script, server
from pydantic import ValidationError

from guardrail.actions.escalate import EscalateConfig
from guardrail.audit import read
from guardrail.testing import tiny_guard
from guardrail.types import Message

ALWAYS = {"raw": -1e6}
GREEDY = {"temperature": 0, "max_new_tokens": 4}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("BIG_KEY", "sk-very-secret")
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)


def rule(url, otherwise="block", stage="prompt", **settings):
    model = {"base_url": url, "model": "big", "api_key_env": "BIG_KEY", **settings}
    action = {"escalate": {"to": {"model": model}, "otherwise": otherwise}}
    found = {"id": "p", "trait": "evil", "layer": 2, "threshold": ALWAYS, "message": "No.", "stage": stage}
    return {**found, "action": action}


def guarded(folder, *rules):
    return tiny_guard(folder, {"policies": list(rules), "audit": {"jsonl": str(folder / "log.jsonl")}})


def test_it_answers_and_the_answer_is_marked(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "May I?"}]
    with server(script(said("Better not."))) as (url, seen), guarded(tmp_path, rule(url)) as guard:
        reply = guard.chat(turns, **GREEDY)
        stream = guard.stream(turns, **GREEDY)
        assert list(stream) == ["Better not."]
    assert (reply.text, reply.outcome, reply.answered_by) == ("Better not.", "escalated", "model:big")
    assert (reply.refused, reply.ticket_id, reply.new_tokens) == (False, None, 0)
    assert reply.history == (*(Message(**turn) for turn in turns), Message("assistant", "Better not."))
    assert stream.reply.answered_by == "model:big"
    assert [record.answered_by for record in read(tmp_path / "log.jsonl")] == ["model:big"] * 2
    assert seen.bodies[0]["model"] == "big"
    assert seen.bodies[0]["messages"] == turns
    assert seen.keys[0] == "Bearer sk-very-secret"


FAULTS = {
    "is down": failed(400),
    "stays busy": failed(503),
    "redirects": Response(302, headers={"Location": "http://127.0.0.1:9/v1"}),
    "says nothing": said(" "),
    "talks nonsense": Response(pieces=(b"<html>",)),
    "hangs": Response(delay=0.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_if_it_does_not_answer_otherwise_takes_over_and_says_why(tmp_path, fault, caplog):
    with server(script(FAULTS[fault])) as (url, _), guarded(tmp_path, rule(url, timeout_s=0.2)) as guard:
        reply = guard.chat("May I?")
    assert (reply.text, reply.outcome, reply.answered_by) == ("No.", "blocked", None)
    assert "p: block takes over: escalation failed" in reply.decision.warnings[-1]
    assert [record.error.partition(":")[0] for record in read(tmp_path / "log.jsonl")] == [
        "escalation failed"
    ]
    assert "escalation to" in caplog.text
    assert "sk-very-secret" not in caplog.text + str(reply)


def test_failing_open_is_said_in_the_decision(tmp_path):
    with guarded(tmp_path, rule("http://127.0.0.1:9/v1", "allow")) as guard:
        reply = guard.chat("May I?", **GREEDY)
    assert (reply.outcome, reply.decision.fail_open, reply.answered_by) == ("answered", True, None)
    assert any("allow takes over" in warning for warning in reply.decision.warnings)


def test_after_a_reply_was_stopped_it_answers_the_question(tmp_path):
    with (
        server(script(said("Better."))) as (url, seen),
        guarded(tmp_path, rule(url, stage="response")) as guard,
    ):
        reply = guard.chat("May I?", **GREEDY)
    assert (reply.text, reply.answered_by) == ("Better.", "model:big")
    assert seen.bodies[0]["messages"] == [{"role": "user", "content": "May I?"}]


def test_it_reads_no_prompt_that_is_already_rendered(tmp_path):
    import torch

    with server(script(said("Better."))) as (url, seen), guarded(tmp_path, rule(url)) as guard:
        guard.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=2, pad_token_id=0)
        (decided,) = guard.last_decisions
    assert decided.action == "escalate"
    assert "already rendered" in json.dumps(decided.warnings)
    assert seen.bodies == []


@pytest.mark.parametrize("more", [{"wait_s": 5}, {"holding": "Wait."}])
def test_what_is_for_people_does_not_apply(more):
    to = {"model": {"base_url": "http://localhost/v1", "model": "big"}}
    with pytest.raises(ValidationError, match="does not apply to `model`"):
        EscalateConfig.model_validate({"to": to, **more})
