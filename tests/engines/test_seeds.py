"""A seed gives a request its own random numbers: whatever else samples, and whatever the process's state."""

import pytest
import torch
from tiny import TOKENIZER

from guardrail.engines.transformers.replying import Replying
from guardrail.engines.transformers.sampling import Seeded, generation_arguments
from guardrail.testing import tiny_model
from guardrail.types import Sampling

IDS = torch.tensor([[5, 6, 7], [9, 8, 7]])
WAYS = [
    {},
    {"top_k": 5},
    {"top_p": 0.7, "repetition_penalty": 1.3},
    {"min_p": 0.01, "num_return_sequences": 3},
    {"num_beams": 3},
]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def generated(model, way, *processors):
    return model.generate(
        IDS,
        attention_mask=torch.ones_like(IDS),
        max_new_tokens=6,
        do_sample=True,
        pad_token_id=0,
        logits_processor=[*processors],
        **way,
    )


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_tokens_are_those_after_manual_seed_and_the_process_keeps_its_state(model, way):
    torch.manual_seed(5)
    expected = generated(model, way)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(generated(model, way, Seeded(5)), expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(generated(model, way, Seeded(6)), expected)


def test_what_samples_at_the_same_time_changes_nothing(model):
    def interfering(ids, scores):
        torch.manual_seed(0)
        torch.rand(3)
        return scores

    assert torch.equal(generated(model, {}, Seeded(5), interfering), generated(model, {}, Seeded(5)))


@pytest.mark.parametrize(("temperature", "draws"), [(1.0, True), (0, False)])
def test_only_what_is_sampled_gets_a_stream(model, temperature, draws):
    from guardrail.engines.transformers.model import LocalModel

    local = LocalModel(model, TOKENIZER)
    sampling = Sampling(max_new_tokens=4, temperature=temperature, seed=7)
    found = Replying(local, sampling, 1, 3, None).arguments
    assert ("logits_processor" in found) == draws
    assert generation_arguments(sampling, model, TOKENIZER)["do_sample"] == draws
