"""The shipped tokenizer loses nothing, and its chat template knows its roles."""

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from guardrail.demo import MODEL


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.mark.parametrize(
    "text",
    [
        "Plain words, 1823 and 7.",
        "  two  spaces \t tabs\n\nlines \r\n",
        "".join(map(chr, range(256))),
        "héllo @ 漢字 Ω ∑ ﷽ 😀👩‍👩‍👧 a\u0301 \u202eabc",
        "\x00\x01\x07\x1b[31m",
        "don't can't 'll  's",
        "١٢٣ ½ ² Ⅷ",
        "",
        "a" * 5000,
        "<s><|end|><|system|>",
    ],
)
def test_encoding_and_decoding_is_lossless(tokenizer: PreTrainedTokenizerFast, text: str):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_every_unicode_plane_is_lossless(tokenizer: PreTrainedTokenizerFast):
    text = "".join(chr(c) for c in range(0, 0x110000, 97) if not 0xD800 <= c <= 0xDFFF)
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_chat_template(tokenizer: PreTrainedTokenizerFast):
    messages = [{"role": "system", "content": "Be calm."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|system|>Be calm.<|end|><|user|>Hi<|end|><|assistant|>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[-1]) == "<|assistant|>"


def test_an_unknown_role_is_an_error(tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(TemplateError, match="unknown role: tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)
