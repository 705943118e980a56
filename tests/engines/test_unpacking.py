"""A GGUF file as a folder: the same model, with the fingerprint of the file while it is that model."""

import pytest
from gguf_files import tiny_gguf
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.engines.transformers.unpacking import unpack
from guardrail.engines.transformers.weights import identity_of
from guardrail.errors import ModelError
from guardrail.testing import tiny_model


def marked(path):
    model, tokenizer = load_pretrained(str(path), {})
    return fingerprint(model, tokenizer, tokenizer.chat_template, {})


@pytest.fixture
def file(tmp_path):
    return tiny_gguf(tmp_path / "tiny.gguf")


def test_the_folder_is_the_model_of_the_file(tmp_path, file):
    folder = unpack(file, tmp_path / "made" / "here")
    assert marked(folder) == marked(file)
    own = load_pretrained(str(file), {})[0].generation_config.eos_token_id
    assert GenerationConfig.from_pretrained(folder).eos_token_id == own
    assert [path.name for path in folder.parent.iterdir()] == ["here"]


def test_a_folder_that_is_there_is_not_made_again(tmp_path, file):
    folder = unpack(file, tmp_path / "here")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    unpack(file, folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_weights_that_were_changed_later_are_another_model(tmp_path, file):
    folder = unpack(file, tmp_path / "here")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert identity_of(folder).startswith("files:")
    assert marked(folder).weights != marked(file).weights
    with pytest.raises(ModelError, match="is there, and does not hold the weights of"):
        unpack(file, folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"origin": "gguf:1", "weights": "files:2"}'])
def test_a_note_that_does_not_fit_counts_for_nothing(tmp_path, text):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "guardrail_origin.json").write_text(text)
    assert identity_of(tmp_path).startswith("files:")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, file):
    (tmp_path / "plain").write_text("")
    with pytest.raises(ModelError, match="cannot be unpacked into"):
        unpack(file, tmp_path / "plain" / "folder")
