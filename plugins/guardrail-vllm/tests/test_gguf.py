"""A GGUF file under vLLM: unpacked once, and still the model that its vectors and packs are for."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="GGUF files need the extra `gguf`")
sys.path.append(str(Path(__file__).parents[3] / "tests"))

from gguf_files import tiny_gguf
from guardrail_vllm.engine import VllmEngine

from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.pretrained import load_pretrained


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "guardrail"


def test_a_gguf_file_keeps_its_fingerprint_and_is_unpacked_once(tmp_path, home, caplog):
    file = tiny_gguf(tmp_path / "tiny.gguf")
    model, tokenizer = load_pretrained(str(file), {})
    expected = fingerprint(model, tokenizer, tokenizer.chat_template, {})
    for _ in range(2):
        engine = VllmEngine.around(str(file), None)
        try:
            assert engine.fingerprint == expected
        finally:
            engine.close()
    (folder,) = home.iterdir()
    assert engine.model.name == str(folder)
    assert [record.message.count("unpacking") for record in caplog.records].count(1) == 1
