"""LoRA adapters inside the engine: the model may have them loaded, and no request runs with one."""

import json
from functools import partial
from math import inf

import pytest
import torch
from guardrail_vllm.attempt import Attempt
from guardrail_vllm.worker.asked import Asked
from safetensors.torch import save_file
from test_engine import answer, rendered, scores
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from world import compiled, guarded, prompts, steering

RANK = 8


@pytest.fixture(scope="module")
def adapted():
    with guarded(enable_lora=True, max_lora_rank=RANK, max_loras=1) as guard:
        yield guard


@pytest.fixture
def adapter(tmp_path, adapted):
    """A LoRA of the first layer's query projection that changes what it computes."""
    width = adapted.engine.fingerprint.d_model
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    generator = torch.Generator().manual_seed(0)
    halves = {
        f"{name}.lora_{half}.weight": shape for half, shape in (("A", (RANK, width)), ("B", (width, RANK)))
    }
    weights = {key: torch.randn(shape, generator=generator) for key, shape in halves.items()}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return LoRARequest("other", 1, str(tmp_path))


def test_a_request_for_an_adapter_is_stopped_with_the_reason(adapted, reference, adapter):
    backend, plan = adapted.engine.backend, compiled(reference, steering())
    name, ids = backend.know(plan), rendered(adapted, prompts(1)[0]).ids

    async def ask(lora):
        def generate(key, extra):
            parameters = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True, extra_args=extra)
            return backend.llm.generate({"prompt_token_ids": list(ids)}, parameters, key, lora_request=lora)

        told = partial(arguments, plan, name, backend.verdicts.address)
        attempt = Attempt(backend.verdicts, generate, told)
        decided = await attempt.decided(inf)
        outputs = [output async for output in attempt.outputs()]
        await attempt.leave()
        return decided, [token for output in outputs[-1:] for token in output.outputs[0].token_ids]

    decided, tokens = backend.wait(ask(adapter))
    assert (
        decided.error
        == "a LoRA adapter was asked for, and the vectors are not certified for the model with it"
    )
    # nothing but the end comes, even where vLLM is told to go on after it
    assert (decided.readings, set(tokens)) == ([], {adapted.tokenizer.eos_token_id})
    decided, tokens = backend.wait(ask(None))
    assert (decided.error, len(tokens)) == (None, 8)


def arguments(plan, name, address, key):
    return Asked(key=key, plan=plan, to=address).arguments(name)


def test_a_model_that_may_load_adapters_is_read_as_without(adapted, reference):
    plan = compiled(reference, steering("cap"))
    prompt = rendered(adapted, prompts(1, seed=2)[0])
    ours, theirs = answer(adapted, prompt, plan), answer(reference, prompt, plan)
    assert scores(ours.decision) == pytest.approx(scores(theirs.decision), rel=1e-3, abs=1e-3)
    assert ours.text == theirs.text
