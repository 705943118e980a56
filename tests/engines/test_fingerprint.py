"""What tells one model from another when it is loaded."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny import TOKENIZER
from torch import nn
from transformers import AutoModelForCausalLM

from guardrail.demo import FINGERPRINT
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.testing import tiny_model


def weights(model):
    return fingerprint(model, TOKENIZER, TOKENIZER.chat_template, {}).weights


def saved(folder, model, **arguments):
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, **arguments)


@torch.no_grad()
def scale_all(model):
    for parameter in model.parameters():
        parameter.mul_(1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_demo_model_has_its_shipped_fingerprint_in_any_dtype(dtype):
    model, _ = load_pretrained("demo", {"dtype": dtype})
    assert weights(model) == json.loads(FINGERPRINT.read_text())["weights"]


def test_a_commit_hash_hides_no_change():
    model = tiny_model()
    model.config._commit_hash = "0" * 40
    before = weights(model)
    scale_all(model)
    assert weights(model) != before


def test_a_commit_hash_stands_for_weights_that_are_those_of_its_files(tmp_path):
    model = saved(tmp_path, tiny_model())
    model.config._commit_hash = "0" * 40
    assert weights(model) == "revision:" + "0" * 40
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[-1] += 0.1
    assert weights(model).startswith("revision:" + "0" * 40 + "+added:")


@pytest.mark.parametrize("tied", [False, True])
def test_tensors_with_two_names_are_those_of_their_files(tmp_path, tied):
    model = saved(tmp_path, tiny_model(tie_word_embeddings=tied))
    assert "+" not in weights(model)


def test_a_buffer_that_the_model_does_not_compute_like_this_is_noticed(tmp_path):
    model = saved(tmp_path, tiny_model())
    model.model.rotary_emb.inv_freq.mul_(1.1)
    assert "+added:" in weights(model)


class ByHand(nn.Module):
    """An adapter that no library made."""

    def __init__(self, own):
        super().__init__()
        self.own, self.strength = own, 1.0

    def forward(self, x):
        return self.own(x) * self.strength


def test_adapters_made_by_hand_count_with_their_numbers():
    model = tiny_model()
    found = {weights(model)}
    model.model.layers[1].mlp = ByHand(model.model.layers[1].mlp)
    found.add(weights(model))
    model.model.layers[1].mlp.strength = 10.0
    found.add(weights(model))
    assert len(found) == 3


def test_the_same_model_has_the_same_fingerprint_again():
    model = tiny_model()
    before = weights(model)
    model.generate(**TOKENIZER("hello", return_tensors="pt"), max_new_tokens=2, pad_token_id=0)
    model.train()
    assert weights(model) == weights(copy.deepcopy(model)) == before
