"""Models out of GGUF files: the same model as in memory, and every bad file named."""

import sys

import gguf
import pytest
import torch
from gguf_files import tiny_gguf
from tiny import FIRES, NEVER, TOKENIZER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.engines.transformers.rendering import PLAIN
from guardrail.errors import ModelError
from guardrail.files.gguf import read_header
from guardrail.testing import tiny_model, tiny_tokenizer

TALK = "Hello there"
GREEDY = {"temperature": 0, "max_new_tokens": 4}


def mark(model, tokenizer=TOKENIZER):
    return fingerprint(model, tokenizer, TOKENIZER.chat_template, {})


@pytest.fixture
def file(tmp_path):
    return tiny_gguf(tmp_path / "tiny.gguf")


def test_the_model_and_its_tokenizer_are_those_that_were_written(file):
    model, tokenizer = load_pretrained(str(file), {})
    ids = torch.tensor([[1, 50, 60, 70]])
    assert torch.equal(model(ids).logits, tiny_model()(ids).logits)
    assert tokenizer.chat_template == TOKENIZER.chat_template
    assert tokenizer("Hi<|end|>").input_ids == TOKENIZER("Hi<|end|>").input_ids
    assert not model.training


def test_a_guard_takes_the_path_of_a_file(tmp_path, file):
    model, tokenizer = load_pretrained(str(file), {})
    write_vectors(tmp_path, model, tokenizer=tokenizer)
    with Guard.from_pretrained(str(file), policies(tmp_path, policy(threshold=NEVER))) as guard:
        reply = guard.chat(TALK, **GREEDY)
        assert reply.decision.status == "evaluated"
        assert "".join(guard.stream(TALK, **GREEDY)) == reply.text
    with Guard.from_pretrained(str(file), policies(tmp_path, policy(threshold=FIRES))) as guard:
        assert guard.check(TALK).decision.action == "block"


def test_every_end_token_of_the_file_ends_a_reply(tmp_path):
    file = tiny_gguf(
        tmp_path / "tiny.gguf", tokenizer__ggml__eot_token_id=40, tokenizer__ggml__eom_token_id=2
    )
    assert load_pretrained(str(file), {})[0].generation_config.eos_token_id == [2, 40]


def test_what_lies_next_to_the_file_is_not_looked_at(tmp_path, file):
    other = tiny_tokenizer()
    other.chat_template = "another template"
    other.save_pretrained(tmp_path)
    tiny_model(layers=2).config.save_pretrained(tmp_path)
    model, tokenizer = load_pretrained(str(file), {})
    assert model.config.num_hidden_layers == 4
    assert tokenizer.chat_template == TOKENIZER.chat_template


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0])
def test_the_fingerprint_depends_on_the_file_alone(tmp_path, kind):
    file = tiny_gguf(tmp_path / "tiny.gguf", kind=kind)
    (tmp_path / "elsewhere").mkdir()
    copy = file.rename(tmp_path / "elsewhere" / "renamed.gguf")
    whole, half = (load_pretrained(str(copy), {"dtype": dtype}) for dtype in ("float32", "bfloat16"))
    assert mark(*whole).weights.startswith("gguf:")
    assert mark(*whole) == mark(*half) == mark(whole[0].to(torch.bfloat16), whole[1])
    other = tiny_gguf(tmp_path / "tiny.gguf", tiny_model(seed=1), kind=kind)
    assert mark(*load_pretrained(str(other), {})).weights != mark(*half).weights


def test_weights_that_are_no_longer_those_of_the_file_have_another_fingerprint(file):
    model, _ = load_pretrained(str(file), {})
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight.mul_(1.01)
    assert "+added:" in mark(model).weights


def test_a_file_may_be_named_by_its_folder(tmp_path, file):
    assert load_pretrained(str(tmp_path), {})[0].name_or_path == str(file)
    tiny_gguf(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"several GGUF files; name one of them: other\.gguf, tiny\.gguf"):
        load_pretrained(str(tmp_path), {})
    assert load_pretrained(str(tmp_path), {"gguf_file": "tiny.gguf"})[0].name_or_path == str(file)


def test_other_weights_of_a_folder_come_first(tmp_path, file):
    tiny_model().save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    assert mark(load_pretrained(str(tmp_path), {})[0]).weights.startswith("files:")


def test_a_file_that_is_cut_short_anywhere_is_named(tmp_path, file):
    whole, cut = file.read_bytes(), tmp_path / "cut.gguf"
    header = min(tensor.start for tensor in read_header(file).tensors)
    for length in [*range(4, header, 97), header, len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.gguf cannot be loaded: the file is cut short or damaged"):
            load_pretrained(str(cut), {})


def test_other_bad_files_are_named(tmp_path, file):
    (tmp_path / "text.gguf").write_text("hello")
    tiny_gguf(tmp_path / "part.gguf", split__count=3)
    tiny_gguf(tmp_path / "mamba.gguf", architecture="mamba9")
    tiny_gguf(tmp_path / "holes.gguf", without=["blk.2.ffn_up.weight", "blk.1.attn_q.weight"])
    (tmp_path / "old.gguf").write_bytes(b"GGUF\x01" + file.read_bytes()[5:])
    for name, message in [
        ("text", "it is not a GGUF file"),
        ("part", "is one part of several"),
        ("mamba", "its architecture is `mamba9`"),
        ("holes", r"lacks 2 weights of its model, such as model.layers.1.self_attn.q_proj.weight"),
        ("old", "GGUF version 1"),
        ("none", "there is no file"),
    ]:
        with pytest.raises(ModelError, match=message):
            load_pretrained(str(tmp_path / f"{name}.gguf"), {})


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_missing_package_is_named_with_its_extra(package, file, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"{package}: pip install 'persona-guardrail\[gguf\]'"):
        load_pretrained(str(file), {})


def test_a_file_is_not_quantised_again(file):
    from transformers import BitsAndBytesConfig

    with pytest.raises(ModelError, match="cannot be quantised again"):
        load_pretrained(str(file), {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)})


def test_a_file_without_a_chat_template_needs_one(tmp_path):
    file = tiny_gguf(tmp_path / "base.gguf", template=None)
    model, tokenizer = load_pretrained(str(file), {})
    write_vectors(tmp_path, model, tokenizer=tokenizer, template=PLAIN)
    with pytest.raises(ModelError, match="no chat template; give one"):
        Guard.from_pretrained(str(file), policies(tmp_path, policy()))
    with Guard.from_pretrained(
        str(file), policies(tmp_path, policy()), chat_template="builtin:plain"
    ) as guard:
        assert guard.check("Hi").decision.action == "block"
