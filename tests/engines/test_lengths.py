"""Models that read a whole batch in another way once one row is long: such rows are never together."""

import pytest
import torch
from tiny import NEVER, TOKENIZER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.engines.transformers.lengths import apart, batched, switches
from guardrail.errors import ModelError, UnsupportedGeneration
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model
from guardrail.types import Message

SWITCH = 40
SHORT, LONG = "hi", "a longer text than the model reads with its short factors"
GREEDY = {"temperature": 0, "max_new_tokens": 3}


def longrope():
    ends = {"original_max_position_embeddings": SWITCH}
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 100.0, **ends, **factors}
    return tiny_model("phi3", rope_parameters=rope, **ends)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("longrope"), longrope()
    write_vectors(folder, model)
    with Guard(model, TOKENIZER, policies(folder, policy(threshold=NEVER, layer=3))) as made:
        yield made


def score(one):
    return one.decision.scores[0].score


def test_rows_that_may_become_long_are_alone():
    assert apart([3, 50, 4, 90], 0, [40]) == [[0, 2], [1, 3]]
    assert apart([3, 38, 50, 39], 5, [40]) == [[0], [1], [2], [3]]
    assert apart([3, 50, 4, 90], 5, []) == [[0, 1, 2, 3]]
    assert list(batched([3, 50, 4, 90], 8, 8, [40])) == [[0, 2], [1], [3]]
    assert switches(tiny_model("llama")) == ()


def test_a_prompt_reads_the_same_beside_a_longer_one(made):
    texts = [SHORT, LONG, SHORT + "?"]
    alone = [made.check(text) for text in texts]
    for many in (made.check_many(texts), made.chat_many(texts, **GREEDY), made.ruling_many(texts)):
        assert [score(one) for one in many] == pytest.approx([score(one) for one in alone], rel=1e-4)


def test_a_reply_is_the_same_beside_a_longer_prompt(made):
    alone = [made.chat(text, **GREEDY).text for text in (SHORT, LONG)]
    assert [one.text for one in made.chat_many([SHORT, LONG], **GREEDY)] == alone


def test_short_and_long_prompts_in_one_call_of_generate_are_refused(made):
    ids = TOKENIZER([SHORT, LONG], return_tensors="pt", padding=True)
    with pytest.raises(UnsupportedGeneration, match="more than 40 tokens in another way"):
        made.generate(**ids, max_new_tokens=2)
    assert made.generate(**TOKENIZER([LONG, LONG], return_tensors="pt"), max_new_tokens=2).shape[0] == 2


def test_what_is_measured_does_not_depend_on_the_batch():
    subject = Subject(longrope(), TOKENIZER)
    talks = [(Message("user", text),) for text in (SHORT, LONG)]
    together, alone = subject.prompt_states(talks), [subject.prompt_states([talk])[0] for talk in talks]
    for found, expected in zip(together, alone, strict=True):
        assert torch.allclose(torch.from_numpy(found), torch.from_numpy(expected), atol=1e-4)


def test_the_engine_that_batches_refuses_such_a_model(tmp_path):
    model = longrope()
    write_vectors(tmp_path, model)
    with pytest.raises(ModelError, match="more than 40 tokens"):
        Guard(model, TOKENIZER, policies(tmp_path, policy()), engine="transformers-batching")
