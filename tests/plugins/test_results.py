"""Everything that a plugin returns while a request runs is checked, and nothing of it is quoted."""

import asyncio
import sys
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from plugging import ManyKinds
from tiny import FIRES, NEVER, guard, policy, rewatch

from guardrail.audit import read
from guardrail.errors import EscalationError, EvaluationError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Answer, Otherwise, Retry
from guardrail.plugins.results import checked_response, checked_review, checked_score
from guardrail.testing.fakes import MemoryQueue
from guardrail.types import Message

TALK = (Message("user", "a secret"),)
RAISED = [
    ValueError("secret"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    CancelledError(),
]


@pytest.mark.parametrize("value", [1, 1.5, np.float32(2), torch.tensor(3.0)])
def test_a_score_is_a_number(value):
    assert checked_score(value) == float(value)


@pytest.mark.parametrize("value", ["1.5", b"1", True, None, [1.0], torch.zeros(2), {}, 10**400])
def test_nothing_else_is_a_score(value):
    with pytest.raises(EvaluationError, match=f"score is not valid .type {type(value).__name__}"):
        checked_score(value)


@pytest.mark.parametrize("value", [["block"], b"block", "steer", "blok", 1])
def test_a_review_asks_for_an_action_that_there_is(value):
    with pytest.raises(EvaluationError, match="plugin `p`"):
        checked_review("p", value, ("block", "steer"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "secret",
        Answer(None),
        Answer("secret\ud800"),
        Answer("secret", ticket="t-1"),
        Retry(None),
        Retry(()),
        Retry("secret"),
        Retry(({"role": "user", "content": "secret"},)),
        Retry((Message("nobody", "secret"),)),
        Retry((Message("user", None),)),
        Retry(TALK, ticket={}),
        Otherwise("steer"),
        Otherwise(["block"]),
        Otherwise("block", ticket=1),
    ],
)
def test_half_a_response_is_none(value):
    with pytest.raises(EvaluationError) as caught:
        checked_response(value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [Answer("Hello"), Retry(TALK), Retry(list(TALK)), Otherwise("allow")])
def test_a_whole_response_is_taken_as_it_is(value):
    assert checked_response(value) is value


class Raises(ManyKinds):
    """Raises an error in one place."""

    name = "raises"

    def __init__(self, where, error):
        self.where, self.error = where, error

    def at(self, place, value):
        if place == self.where:
            raise self.error
        return value


@pytest.mark.parametrize("where", ["scorer", "review", "action"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_plugin_raises_is_on_error_and_has_a_record(tmp_path, where, error):
    action, threshold = ("raises", FIRES) if where == "action" else ("block", NEVER)
    rule = policy(action, trait="raises", threshold=threshold, message="No.")
    log, plugin = tmp_path / "audit.jsonl", Raises(where, error)
    with guard(tmp_path, rule, options={"plugins": [plugin]}, audit={"jsonl": str(log)}) as made:
        if where == "action" and isinstance(error, KeyboardInterrupt):
            # in the caller's thread, this may be the caller's own
            with pytest.raises(KeyboardInterrupt):
                made.chat("Hello")
            assert [record.outcome for record in read(log)] == ["cancelled"]
            return
        reply = made.chat("Hello")
        assert (reply.text, reply.outcome) == ("No.", "blocked")
        plugin.where = None
        assert made.check("Hello").decision.status == "evaluated"
    assert [record.outcome for record in read(log)] == ["blocked", "checked"]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_the_model_raises_is_on_error_and_has_a_record(tmp_path, error):
    def fail(module, args):
        raise error

    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(threshold=NEVER, message="No."), audit={"jsonl": str(log)}) as made:
        handle = made.engine.blocks[0].register_forward_pre_hook(fail)
        rewatch(made)
        assert made.chat("Hello").text == "No."
        handle.remove()
        rewatch(made)
        assert made.check("Hello").decision.status == "evaluated"
    assert [record.outcome for record in read(log)] == ["blocked", "checked"]


@pytest.mark.parametrize("fault", [lambda _: sys.exit(1), lambda _: "pending"])
def test_a_sink_that_fails_to_find_a_ticket_says_which_it_is(tmp_path, monkeypatch, fault):
    queue = MemoryQueue()
    monkeypatch.setattr(queue, "get", fault)

    class Plugin:
        @hookimpl
        def guardrail_escalation_sinks(self):
            return [queue]

    with (
        guard(tmp_path, policy(), options={"plugins": [Plugin()]}) as made,
        pytest.raises(EscalationError, match="sink `memory-queue`"),
    ):
        made.ticket("t-1")
