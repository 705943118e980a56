"""Models that would be read wrongly are refused when they are loaded, by name."""

from __future__ import annotations

import pytest
import torch
from tiny import TOKENIZER
from transformers import AutoConfig, AutoModelForCausalLM

from guardrail.engines.transformers.model import LocalModel
from guardrail.errors import ModelError
from guardrail.testing import ARCHITECTURES, tiny_model
from guardrail.types import POSITIONS

SIZES = {
    "vocab_size": 262,
    "hidden_size": 32,
    "d_model": 32,
    "emb_dim": 32,
    "n_embd": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layers": 2,
    "n_layer": 2,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "num_attention_heads": 4,
    "decoder_attention_heads": 4,
    "n_heads": 4,
    "n_head": 4,
    "intermediate_size": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "init_std": 0.2,
    "initializer_range": 0.2,
}


def tiny(kind, **overrides):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, is_decoder=True, **overrides)
    config.is_encoder_decoder = False
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_that_are_read_rightly_are_accepted(architecture):
    LocalModel(tiny_model(architecture), TOKENIZER)


@pytest.mark.parametrize(
    "kind", ["roberta", "xlm-roberta", "camembert", "data2vec-text", "bart", "mbart", "marian"]
)
def test_decoders_whose_positions_padding_moves_are_refused(kind):
    with pytest.raises(ModelError, match="cannot be guarded: a prompt reads differently alone and padded"):
        LocalModel(tiny(kind), TOKENIZER)


@pytest.mark.parametrize("kind", ["xlm", "openai-gpt"])
def test_blocks_that_give_no_residual_stream_are_refused(kind):
    with pytest.raises(ModelError, match="cannot be guarded"):
        LocalModel(tiny(kind), TOKENIZER)


def test_a_model_whose_wrapper_does_more_is_refused():
    class Doubled(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.peft_config = {"default": object()}

        def get_base_model(self):
            return self.model

        def forward(self, input_ids, **kwargs):
            return self.model(input_ids=input_ids.flip(1), **kwargs)

    with pytest.raises(ModelError, match="reads differently"):
        LocalModel(Doubled(tiny_model()), TOKENIZER)


def test_nothing_of_the_test_is_left():
    model = tiny_model().train()
    before = torch.random.get_rng_state()
    LocalModel(model, TOKENIZER)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_users_hook_that_changes_a_block_is_no_reason_to_refuse():
    model = tiny_model()
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: output * 1.1)
    LocalModel(model, TOKENIZER)


def test_a_skeleton_without_weights_is_not_run():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_model().config)
    LocalModel(model, TOKENIZER)


def shown_beside_others(block, first):
    """Let a block show other states of earlier tokens in a batch, and compute as before."""
    own = block.forward

    def forward(hidden, *args, **kwargs):
        shift = torch.zeros_like(hidden)
        shift[:, :-1] = 3.0 * (len(hidden) > 1)
        return own(hidden if first else hidden - shift, *args, **kwargs) + shift

    block.forward = forward


def test_a_model_whose_earlier_tokens_read_differently_in_a_batch_gives_the_last_one_alone():
    assert LocalModel(tiny_model(), TOKENIZER).positions == set(POSITIONS)
    model = tiny_model()
    for i, block in enumerate(model.model.layers):
        shown_beside_others(block, i == 0)
    assert LocalModel(model, TOKENIZER).positions == {"last"}
