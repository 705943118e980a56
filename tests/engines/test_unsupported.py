"""Ways of generating that the guard cannot see are refused by name, and the model stays usable."""

import pytest
import torch
from tiny import Fixed, batch, engine, generate, plan
from transformers import GenerationConfig

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


def test_a_generation_that_never_prefills_under_guard_is_an_error_not_a_pass():
    with engine() as (made, _):
        made.inner._prefill = made._before.get("_prefill") or type(made.inner)._prefill.__get__(made.inner)
        with pytest.raises(EvaluationError, match="not guarded"):
            generate(made, plan(), Fixed(), **batch(1))


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
