"""What heads attend to, against the weights that transformers' eager attention gives."""

import copy
import threading

import pytest
import torch
from tiny import TOKENIZER, engine
from torch import nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from guardrail.engines.transformers.attention import last_attention, last_weights
from guardrail.errors import ModelError
from guardrail.extract.subject import Subject
from guardrail.testing import ARCHITECTURES, tiny_model

# longer than the sliding windows, and of different lengths
ROWS = [TOKENIZER(text)["input_ids"] for text in ("a prompt that is longer than windows", "a short one", "z")]


def eager(model, ids, mask):
    """[rows, layers, heads, tokens] of the last token, and what values the attentions got."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    with torch.no_grad():
        found = model(**inputs, use_cache=False, output_attentions=True).attentions
    return torch.stack([one[:, :, -1] for one in found], 1)


def special(architecture):
    """Softcapped scores, and sinks with windows: what the usual tiny models do not have."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 262, "pad_token_id": 0}
    more = {
        "gemma2": {"attn_logit_softcapping": 2.0},
        "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1},
    }[architecture]
    config = AutoConfig.for_model(
        architecture, **sizes, **more, sliding_window=8, initializer_range=0.2, attn_implementation="eager"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gemma2", "gpt_oss"])
def test_weights_are_those_of_eager_attention(architecture):
    model = tiny_model(architecture) if architecture in ARCHITECTURES else special(architecture)
    subject = Subject(model, TOKENIZER)
    ids, mask = subject.local.padded(ROWS, left=True)
    expected = eager(model, ids, mask)
    found = subject.activations.attention(ids, mask)
    assert found.weights.shape == expected.shape == found.values.shape
    assert torch.allclose(found.weights, expected, atol=1e-5)
    assert found.weighted.sum(-1) == pytest.approx(1, abs=1e-5)
    # no padding: a fused attention gets no mask then
    whole = torch.tensor([ROWS[0]])
    alone = subject.activations.attention(whole, torch.ones_like(whole))
    assert torch.allclose(alone.weights[0], expected[0], atol=1e-5)


def test_values_are_shared_by_the_heads_of_a_group():
    subject = Subject(tiny_model(), TOKENIZER)
    ids, mask = subject.local.padded(ROWS[:1], left=True)
    values = subject.activations.attention(ids, mask).values[0]
    assert torch.equal(values[:, 0], values[:, 1])
    assert torch.equal(values[:, 2], values[:, 3])
    assert not torch.allclose(values[:, 0], values[:, 2])
    seen = []
    attention = subject.model.model.layers[1].self_attn
    hook = attention.v_proj.register_forward_hook(lambda module, given, output: seen.append(output))
    subject.activations.attention(ids, mask)
    hook.remove()
    expected = seen[0][0].unflatten(-1, (2, -1)).norm(dim=-1).T
    assert torch.allclose(values[1, ::2], expected, atol=1e-5)


@pytest.mark.parametrize("columns", [None, "tokens"])
def test_masks_as_flash_attention_gets_them(columns):
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6]) if columns else None
    allowed = torch.ones(2, 6, dtype=torch.bool) if mask is None else mask.bool().clone()
    allowed[:, :3] = False
    given = {"sliding_window": 3, "scaling": 0.5}
    found = last_weights(nn.Identity(), query, key, mask, given)
    scores = 0.5 * torch.einsum("rhd,rhkd->rhk", query[:, :, -1], key.repeat_interleave(2, 1))
    assert torch.allclose(found, scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1), atol=1e-6)


def test_other_models_on_other_threads_are_let_through():
    other, results = tiny_model("qwen2"), []
    before = AttentionInterface.get_interface
    with engine() as (made, _):
        ids = torch.tensor([ROWS[0]])
        expected = made.activations.attention(ids, torch.ones_like(ids))

        def forward():
            thread = threading.Thread(target=lambda: results.append(other(ids).logits))
            thread.start()
            thread.join()
            made.model(ids)

        found = last_attention(made.blocks, forward)
    assert torch.allclose(found.weights, expected.weights, atol=1e-5)
    assert len(results) == 1
    assert AttentionInterface.get_interface is before


def test_a_model_without_readable_attention_is_named():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.Linear(2, 2)

    blocks = [Own()]
    with pytest.raises(ModelError, match="Own: layer 1 does not compute attention through"):
        last_attention(blocks, lambda: blocks[0].attn(torch.ones(1, 2)))
