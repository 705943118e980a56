"""Batches of which some rows cannot go on: the others keep their replies, or none counts as answered."""

import pytest
from tiny import FIRES, NEVER, TEXTS, TOKENIZER, guard, policies, policy, write_vectors

from guardrail import Guard
from guardrail.audit import read
from guardrail.errors import PromptError
from guardrail.testing import tiny_model
from guardrail.types import Message

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GREEDY = {"temperature": 0, "max_new_tokens": 4}


def middle(folder):
    """A threshold that half of TEXTS reach."""
    model = tiny_model()
    write_vectors(folder, model)
    source = policies(folder, policy(threshold=NEVER), allow_model_mismatch=True)
    with Guard(model, TOKENIZER, source, chat_template=NO_SYSTEM) as scoring:
        scores = sorted(found.decision.scores[0].score for found in scoring.check_many(TEXTS))
    return sum(scores[3:5]) / 2


@pytest.mark.parametrize(
    ("otherwise", "outcome"), [("block", "blocked"), ("allow", "rephrased"), ("escalate", "escalated")]
)
def test_a_rephrased_prompt_that_the_template_refuses_gets_otherwise(tmp_path, otherwise, outcome):
    log = tmp_path / "audit.jsonl"
    rule = policy({"rephrase": {"otherwise": otherwise}}, middle(tmp_path))
    options = {"options": {"chat_template": NO_SYSTEM}, "allow_model_mismatch": True}
    options |= {"audit": {"jsonl": str(log)}}
    with guard(tmp_path, rule, **options) as made:
        replies = made.chat_many(TEXTS, **GREEDY)
    outcomes = [reply.outcome for reply in replies]
    assert sorted(outcomes) == sorted(["answered"] * 4 + [outcome] * 4)
    assert sorted(record.outcome or "" for record in read(log)) == sorted(outcomes)
    changed = next(reply for reply in replies if reply.outcome == outcome)
    assert "do not fit" in " ".join(changed.decision.warnings)


def test_a_rephrased_prompt_that_is_too_long_gets_otherwise(tmp_path):
    rule = policy({"rephrase": {"instruction": "x" * 400}}, FIRES, message="No.")
    with guard(tmp_path, rule) as made:
        reply = made.chat("y" * 200, **GREEDY)
    assert (reply.outcome, reply.text) == ("blocked", "No.")


@pytest.mark.parametrize("ask", ["chat_many", "check_many"])
def test_nothing_counts_as_answered_if_a_later_prompt_takes_all_replies_with_it(tmp_path, ask):
    log = tmp_path / "audit.jsonl"
    options = GREEDY if ask == "chat_many" else {}
    with (
        guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made,
        pytest.raises(PromptError, match="tokens"),
    ):
        getattr(made, ask)([*["Hello"] * 34, "z" * 2000], **options)
    assert {record.outcome for record in read(log)} == {"error"}


def test_a_failing_second_round_leaves_no_reply_that_counts_as_answered(tmp_path, monkeypatch):
    log = tmp_path / "audit.jsonl"
    rule = policy("rephrase", middle(tmp_path))
    with guard(tmp_path, rule, audit={"jsonl": str(log)}) as made:
        submit, calls = made._driver.worker.submit, []

        def full(*arguments, **options):
            calls.append(1)
            if len(calls) > 1:
                raise PromptError("no")
            return submit(*arguments, **options)

        monkeypatch.setattr(made._driver.worker, "submit", full)
        with pytest.raises(PromptError):
            made.chat_many([[Message("user", text)] for text in TEXTS], **GREEDY)
    assert {record.outcome for record in read(log)} == {"error"}
