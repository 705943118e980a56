"""Ways of generating that the guard cannot see are refused by name, and the model stays usable."""

import pytest
import torch
from tiny import Fixed, batch, engine, generate, plan
from transformers import GenerationConfig, LogitsProcessorList

from guardrail.errors import EvaluationError, PromptError, UnsupportedGeneration


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ({"assistant_model": object()}, "assisted decoding"),
        ({"prompt_lookup_num_tokens": 2}, "prompt-lookup"),
        ({"custom_generate": lambda *a, **k: None}, "custom generation"),
        ({"prefill_chunk_size": 4}, "chunked prefill"),
        ({"inputs_embeds": torch.zeros(1, 2, 32)}, "embeddings"),
        ({"cache_implementation": "paged"}, "generate_batch"),
        ({"guidance_scale": 1.5}, "guidance"),
        ({"generation_config": GenerationConfig(prompt_lookup_num_tokens=3)}, "prompt-lookup"),
        ({"generation_config": GenerationConfig(prefill_chunk_size=8)}, "chunked prefill"),
    ],
)
def test_unsupported_generation_is_refused(kwargs, what):
    with engine() as (made, bare):
        with pytest.raises(UnsupportedGeneration, match=what):
            generate(made, plan(), Fixed(), **batch(1), **kwargs)
        output = generate(made, plan(), Fixed(), **batch(1), do_sample=False).output
        assert torch.equal(
            output, bare.generate(**batch(1), do_sample=False, max_new_tokens=6, pad_token_id=0)
        )


@pytest.mark.parametrize(
    "inputs",
    [{}, {"input_ids": torch.zeros(1, 0, dtype=torch.long)}, {"input_ids": torch.ones(3, dtype=torch.long)}],
)
def test_missing_and_empty_prompts_are_errors(inputs):
    with engine() as (made, _), pytest.raises(PromptError):
        generate(made, plan(), Fixed(), **inputs)


def test_a_row_of_nothing_but_padding_is_an_error():
    inputs = batch(2)
    inputs["attention_mask"][1] = 0
    with engine() as (made, _), pytest.raises(PromptError, match="empty"):
        generate(made, plan(), Fixed(), **inputs)


class Seen:
    """Collects what it is given, as a streamer and as a logits processor."""

    def __init__(self):
        self.tokens = []

    def put(self, value):
        self.tokens.append(value)

    def end(self):
        self.tokens.append("end")

    def __call__(self, ids, scores):
        self.tokens.append(ids)
        return scores


def by_model(self, ids):
    return self(ids).logits


def by_parts(self, ids):
    return self.lm_head(self.model(ids)[0])


@pytest.mark.parametrize("step", [by_model, by_parts])
def test_a_generation_that_never_prefills_is_refused_before_anyone_sees_a_token(step):
    def own_loop(self, input_ids, logits_processor, streamer=None, **_):
        for _ in range(3):
            scores = logits_processor(input_ids, step(self, input_ids)[:, -1])
            input_ids = torch.cat([input_ids, scores.argmax(-1, keepdim=True)], 1)
            streamer.put(input_ids[:, -1])
        streamer.end()
        return input_ids

    with engine() as (made, _):
        seen = Seen()
        made.inner.__class__ = type("OwnLoop", (type(made.inner),), {"_sample": own_loop})
        with pytest.raises(EvaluationError, match="not guarded"):
            generate(
                made,
                plan(),
                Fixed(),
                **batch(1),
                streamer=seen,
                logits_processor=LogitsProcessorList([seen]),
            )
    assert seen.tokens == []


@pytest.mark.parametrize("actions", ["allow", "block", "steer"])
def test_a_streamer_gets_nothing_before_the_decision(actions):
    seen = Seen()

    class Deciding(Fixed):
        def decide(self, row, readings):
            assert seen.tokens == []
            return super().decide(row, readings)

    with engine() as (made, bare):
        inputs = {**batch(1), "do_sample": False}
        generate(made, plan(), Deciding((actions,)), **inputs, streamer=seen)
        expected = Seen()
        bare.generate(**inputs, streamer=expected, max_new_tokens=6, pad_token_id=0)
    if actions == "block":
        assert seen.tokens == []
    else:
        assert [torch.equal(*pair) for pair in zip(seen.tokens[:-1], expected.tokens[:-1], strict=True)]
        assert seen.tokens[-1] == "end"


def test_an_error_in_the_middle_of_a_generation_leaves_the_model_usable():
    class Broken(Fixed):
        def decide(self, row, readings):
            raise RuntimeError("broken")

    with engine() as (made, bare):
        with pytest.raises(RuntimeError, match="broken"):
            generate(made, plan(), Broken(), **batch(1))
        output = generate(made, plan(), Fixed(), **batch(1), do_sample=False).output
        assert torch.equal(
            output, bare.generate(**batch(1), do_sample=False, max_new_tokens=6, pad_token_id=0)
        )
