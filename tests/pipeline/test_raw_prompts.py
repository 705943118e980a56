"""Raw text in place of messages: the same guard, without a chat template."""

import pytest
from tiny import FIRES, NEVER, policies, policy, write_vectors

from guardrail import Guard, PromptError, RawPrompt
from guardrail.testing import tiny_model, tiny_tokenizer

GREEDY = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("guard"), tiny_model()
    write_vectors(folder, model)
    with Guard(model, tiny_tokenizer(), policies(folder, policy(threshold=NEVER))) as made:
        yield made


def rendered(made, text):
    from guardrail.pipeline.request import request

    return made.engine.render(request("check", text).messages).ids


@pytest.mark.parametrize("known", [True, False])
def test_a_rendered_prompt_as_raw_text_is_the_same_prompt(made, known):
    ids = rendered(made, "hello world")
    raw = RawPrompt(made.engine.decode(ids), ids if known else None)
    reply, same = made.chat("hello world", **GREEDY), made.chat(raw, **GREEDY)
    assert same.text == reply.text
    assert same.prompt_tokens == reply.prompt_tokens == len(ids)
    assert [s.score for s in same.decision.scores] == [s.score for s in reply.decision.scores]
    stream = made.stream(raw, **GREEDY)
    assert "".join(stream) == reply.text
    check = made.check(raw)
    assert [s.score for s in check.decision.scores] == [s.score for s in reply.decision.scores]


def test_every_decision_warns_that_thresholds_are_made_for_something_else(made):
    assert any("raw text" in warning for warning in made.chat(RawPrompt("hello"), **GREEDY).decision.warnings)
    assert not made.chat("hello", **GREEDY).decision.warnings


@pytest.mark.parametrize(
    "raw", [RawPrompt(""), RawPrompt("", ()), RawPrompt("x", (10**6,)), RawPrompt("x", (-1,))]
)
def test_a_prompt_without_tokens_or_with_unknown_ones_is_refused(made, raw):
    with pytest.raises(PromptError):
        made.chat(raw, **GREEDY)


def test_raw_text_is_never_rephrased(tmp_path):
    model = tiny_model()
    write_vectors(tmp_path, model)
    action = {"rephrase": {"instruction": "Be kind.", "otherwise": "block"}}
    rules = policies(tmp_path, policy(threshold=FIRES, action=action, message="no"))
    with Guard(model, tiny_tokenizer(), rules) as made:
        reply = made.chat(RawPrompt("hello"), **GREEDY)
    assert (reply.outcome, reply.text, reply.earlier) == ("blocked", "no", ())
