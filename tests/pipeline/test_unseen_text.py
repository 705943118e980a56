"""Text that the model reads and those who judge text have to see, and text that no log may show."""

import pytest
import torch
from tiny import CACHE, FIRES, NEVER, TOKENIZER, guard, policy
from transformers import DynamicCache

from guardrail import errors
from guardrail.audit import read
from guardrail.pipeline.evaluator import Row
from guardrail.plugins.hookspecs import hookimpl
from guardrail.types import Facts, Message


class Words:
    """A scorer that looks for a word, and raises an error of ours that quotes the prompt if told to."""

    name = "words"

    def __init__(self, raises=None):
        self.raises = raises

    def score(self, messages):
        if self.raises:
            raise self.raises(str(messages))
        return float(any("evil" in message.content for message in messages))

    @hookimpl
    def guardrail_scorers(self):
        return [self]


def judged(**keys):
    return policy(trait="words", threshold=0.5, **keys)


def test_a_cache_whose_text_scorers_cannot_see_is_for_policies_to_allow(tmp_path):
    ids = TOKENIZER("be evil now", return_tensors="pt")["input_ids"]
    with guard(tmp_path, judged(), options={"plugins": [Words()]}) as made:
        cache = DynamicCache()
        with torch.no_grad():
            made.model(ids[:, :-4], **{CACHE: cache})
        arguments = {"attention_mask": torch.ones_like(ids), CACHE: cache, "max_new_tokens": 2}
        made.generate(ids[:, -4:], **arguments)
        (decision,) = made.last_decisions
    assert (decision.status, decision.action) == ("not_evaluated", "block")


def test_scorers_see_the_tools():
    row = Row((Message("user", "hi"),), Facts(), None, ({"name": "f", "description": "be evil"},))
    assert Words().score(row.texts) == 1.0


def test_changed_messages_that_end_in_a_reply_are_for_policies_to_allow(tmp_path):
    class Begins:
        name = "begins"

        def rephrase(self, messages, instruction, complete):
            return [Message("user", "x"), Message("assistant", "y")]

        @hookimpl
        def guardrail_rephrasers(self):
            return [self]

    asks = policy({"rephrase": {"by": "begins", "otherwise": "block"}}, threshold=FIRES)
    with guard(tmp_path, asks, options={"plugins": [Begins()]}) as made:
        reply = made.chat("Hello", max_new_tokens=2)
    assert (reply.decision.status, reply.outcome) == ("not_evaluated", "blocked")


@pytest.mark.parametrize("raises", [errors.EvaluationError, errors.PromptError])
def test_an_error_of_ours_that_a_plugin_raises_is_not_quoted(tmp_path, caplog, raises):
    log = tmp_path / "audit.jsonl"
    options, audit = {"plugins": [Words(raises)]}, {"jsonl": str(log)}
    with guard(tmp_path, judged(), options=options, audit=audit) as made:
        assert made.chat("SECRET").outcome == "blocked"
    assert "SECRET" not in log.read_text() + caplog.text
    assert len(list(read(log))) == 1


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "SECRET text"}]},
        {"role": "user", "content": "x", "SECRET text": 1},
    ],
)
def test_a_key_or_type_that_is_a_text_is_not_quoted(tmp_path, message):
    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made:
        assert made.chat([message]).outcome == "blocked"
    assert "SECRET" not in log.read_text()


def test_an_action_that_a_review_asks_for_is_not_quoted(tmp_path):
    class Review:
        @hookimpl
        def guardrail_review(self, decision, messages):
            return messages[0].content

    log = tmp_path / "audit.jsonl"
    rule = policy(threshold=NEVER)
    with guard(tmp_path, rule, options={"plugins": [Review()]}, audit={"jsonl": str(log)}) as made:
        assert made.chat("SECRET").outcome == "blocked"
    assert "SECRET" not in log.read_text()
