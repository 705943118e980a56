"""What a caller learns of a reply: why it ended, how long it is, log probabilities, several replies."""

import pytest
import torch
from tiny import FIRES, NEVER, guard, policies, policy, write_vectors

from guardrail import Guard, hookimpl
from guardrail.errors import PromptError, UnsupportedGeneration
from guardrail.testing import MemoryAudit, tiny_model, tiny_tokenizer

ENGINES = ["transformers", "transformers-nnsight", "transformers-hooks"]
PROMPT = "hello world"


@pytest.fixture(scope="module", params=ENGINES)
def made(request, tmp_path_factory):
    """A guard that allows everything, under each executor."""
    folder, model = tmp_path_factory.mktemp("guard"), tiny_model()
    write_vectors(folder, model)
    rules = policies(folder, policy(threshold=NEVER))
    with Guard(model, tiny_tokenizer(), rules, engine=request.param) as guarded:
        yield guarded


def streamed(made, **options):
    stream = made.stream(PROMPT, **options)
    return list(stream), stream.reply


def test_a_reply_says_why_it_ended_and_how_long_it_is(made):
    reply = made.chat(PROMPT, temperature=0, max_tokens=5)
    assert (reply.finish, reply.new_tokens) == ("length", 5)
    assert reply.prompt_tokens == len(made.engine.render(_turns(PROMPT)).ids)
    ended = made.chat(PROMPT, temperature=0, max_tokens=5, logit_bias={2: 100})
    assert (ended.finish, ended.new_tokens, ended.text) == ("stop", 1, "")


def _turns(text):
    from guardrail.pipeline.request import request

    return request("check", text).messages


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_is_cut_off_the_reply(made, stream):
    whole = made.chat(PROMPT, temperature=0, max_tokens=24).text
    stop = whole[10:13]
    expected = whole[: whole.index(stop)]
    if stream:
        pieces, reply = streamed(made, temperature=0, max_tokens=24, stop=stop)
        assert "".join(pieces) == expected
    else:
        reply = made.chat(PROMPT, temperature=0, max_tokens=24, stop=[stop, "never there"])
    assert (reply.text, reply.finish) == (expected, "stop")
    assert reply.history[-1].content == expected


def test_log_probabilities_are_the_models_own_and_change_no_token(made):
    plain = made.chat(PROMPT, seed=3, temperature=1.5, max_tokens=12)
    reply = made.chat(PROMPT, seed=3, temperature=1.5, max_tokens=12, logprobs=True, top_logprobs=3)
    assert reply.text == plain.text
    assert not plain.choices[0].logprobs
    found = reply.choices[0].logprobs
    prompt = torch.tensor([made.engine.render(_turns(PROMPT)).ids])
    torch.manual_seed(3)
    ids = made.generate(input_ids=prompt, max_new_tokens=12, do_sample=True, temperature=1.5, pad_token_id=0)
    with torch.no_grad():
        logits = made.model(ids).logits[0, prompt.shape[1] - 1 : -1]
    expected, own = torch.log_softmax(logits.float(), -1), ids[0, prompt.shape[1] :]
    for step, token, one in zip(expected, own, found, strict=True):
        assert one.logprob == pytest.approx(float(step[token]), abs=1e-4)
        assert [top.logprob for top in one.top] == pytest.approx(step.topk(3).values.tolist(), abs=1e-4)


def test_a_stream_has_the_same_log_probabilities(made):
    options = {"temperature": 0, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    pieces, reply = streamed(made, **options)
    whole = made.chat(PROMPT, **options).choices[0].logprobs
    assert tuple(one for piece in pieces for one in piece.logprobs) == whole == reply.choices[0].logprobs


def test_several_replies_to_one_prompt_are_repeatable(made):
    reply = made.chat(PROMPT, n=3, seed=5, temperature=2.0, max_tokens=8)
    texts = [choice.text for choice in reply.choices]
    assert len(set(texts)) == 3
    assert reply.text == texts[0]
    assert reply.new_tokens == sum(choice.new_tokens for choice in reply.choices)
    again = made.chat(PROMPT, n=3, seed=5, temperature=2.0, max_tokens=8)
    assert [choice.text for choice in again.choices] == texts


def test_greedy_replies_are_all_the_same(made):
    reply = made.chat(PROMPT, n=3, temperature=0, max_tokens=8)
    assert [choice.text for choice in reply.choices] == [
        made.chat(PROMPT, temperature=0, max_tokens=8).text
    ] * 3


@pytest.mark.parametrize("temperature", [0, 2.0])
def test_several_replies_are_streamed_side_by_side(made, temperature):
    options = {"n": 2, "seed": 5, "temperature": temperature, "max_tokens": 8, "logprobs": True}
    pieces, reply = streamed(made, **options)
    whole = made.chat(PROMPT, **options)
    for number, choice in enumerate(whole.choices):
        mine = [piece for piece in pieces if piece.number == number]
        assert "".join(mine) == choice.text == reply.choices[number].text
        assert tuple(one for piece in mine for one in piece.logprobs) == choice.logprobs


def test_penalties_and_biases_change_what_is_sampled(made):
    plain = made.chat(PROMPT, temperature=0, max_tokens=16).text
    biased = made.chat(PROMPT, temperature=0, max_tokens=4, logit_bias={"40": 100}).text
    assert len(set(biased)) == 1
    assert biased != plain[:4]
    costly = made.chat(PROMPT, temperature=0, max_tokens=16, presence_penalty=2, frequency_penalty=2).text
    assert costly != plain
    with pytest.raises(PromptError, match="the token 999"):
        made.chat(PROMPT, logit_bias={"999": 1})


def test_greedy_replies_need_no_other_option(made, caplog):
    plain = made.chat(PROMPT, temperature=0, max_tokens=4).text
    assert made.chat(PROMPT, temperature=0, max_tokens=4, top_p=0.5, top_k=3).text == plain
    assert not [record for record in caplog.records if "generation flags" in record.getMessage()]


def test_several_replies_have_one_record_and_one_decision(tmp_path):
    audit = MemoryAudit()
    with guard(tmp_path, policy(threshold=NEVER), options={"plugins": [Sink(audit)]}) as made:
        reply = made.chat(PROMPT, n=3, seed=1, temperature=2.0, max_tokens=4)
    (record,) = audit.records.values()
    assert (record.id, record.attempts, record.new_tokens) == (reply.audit_id, 1, reply.new_tokens)


class Sink:
    """Adds a sink that keeps records in memory."""

    def __init__(self, audit):
        self.audit = audit

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self.audit]


def test_an_answer_in_place_of_the_model_is_the_only_one(tmp_path):
    with guard(tmp_path, policy(threshold=FIRES)) as made:
        reply = made.chat(PROMPT, n=3, logprobs=True)
        assert [choice.text for choice in reply.choices] == [reply.text]
        assert reply.new_tokens == 0 < reply.prompt_tokens
        assert not reply.choices[0].logprobs


def test_response_policies_follow_one_reply(tmp_path):
    rule = policy(threshold={"raw": NEVER}, stage="response")
    with guard(tmp_path, rule) as made:
        with pytest.raises(UnsupportedGeneration, match="several replies"):
            made.chat(PROMPT, n=2, temperature=1.0)
        assert made.chat(PROMPT, logprobs=True, max_tokens=4).choices[0].logprobs


def test_rows_of_a_batch_have_their_own_facts(tmp_path):
    rule = policy(threshold=NEVER)
    with guard(tmp_path, rule) as made:
        options = {"temperature": 0, "max_tokens": 9, "logprobs": True}
        texts = [made.chat(one, **options) for one in ("hello world", "z")]
        both = made.chat_many(["hello world", "z"], **options)
        stop = texts[0].text[3:5]
        stopped = made.chat_many(["hello world", "z"], stop=stop, **options)
    assert [one.text for one in both] == [one.text for one in texts]
    for mine, alone in zip(both, texts, strict=True):
        pairs = zip(mine.choices[0].logprobs, alone.choices[0].logprobs, strict=True)
        assert all(a.logprob == pytest.approx(b.logprob, abs=1e-3) for a, b in pairs)
    assert (stopped[0].finish, stopped[0].text) == ("stop", texts[0].text[:3])
    assert stopped[0].new_tokens <= 6


def test_an_engine_that_does_not_know_an_option_refuses_it(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        old = _Old(made.engine)
        made._driver.engine = old
        with pytest.raises(UnsupportedGeneration, match="`n`"):
            made.chat(PROMPT, n=2)
        assert made.chat(PROMPT, max_tokens=2).finish == "length"


class _Old:
    """An engine from before there were further options."""

    def __init__(self, engine):
        self._engine = engine

    def __getattr__(self, name):
        if name == "sampling_options":
            raise AttributeError(name)
        return getattr(self._engine, name)
