"""GGUF files of tiny random models, written as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.testing.tiny import END, PAD, ROLES, START

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny_gguf(
    path: Path,
    model: Any = None,
    *,
    architecture: str = "llama",
    template: str | None = tiny_tokenizer().chat_template,
    without: Sequence[str] = (),
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    **metadata: int,
) -> Path:
    """Write a tiny Llama. `without`: tensors that are left out. `metadata`: more numbers, `__` for a dot."""
    model = model or tiny_model()
    writer = gguf.GGUFWriter(path, architecture)
    _describe(writer, model.config)
    _vocabulary(writer, template)
    for key, value in metadata.items():
        writer.add_uint32(key.replace("__", "."), value)
    for name, tensor in model.state_dict().items():
        if (short := _name(name)) not in without:
            _add(writer, short, _ordered(name, tensor.numpy(), model.config), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    # norms stay plain, as in real files
    kind = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _describe(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _vocabulary(writer: gguf.GGUFWriter, template: str | None) -> None:
    vocabulary = tiny_tokenizer().get_vocab()
    names = sorted(vocabulary, key=lambda name: vocabulary[name])
    special = {PAD, START, END, *ROLES}
    types = [gguf.TokenType.CONTROL if name in special else gguf.TokenType.NORMAL for name in names]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(names)
    writer.add_token_types(types)
    # merges are made of these, and no two tokens make a third
    writer.add_token_scores([0.0] * len(names))
    writer.add_bos_token_id(vocabulary[START])
    writer.add_eos_token_id(vocabulary[END])
    writer.add_pad_token_id(vocabulary[PAD])
    if template is not None:
        writer.add_chat_template(template)


def _name(name: str) -> str:
    for long, short in NAMES.items():
        name = name.replace(long, short)
    return name


def _ordered(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """Queries and keys with the halves of each head interleaved, as llama.cpp rotates them."""
    if "q_proj" not in name and "k_proj" not in name:
        return values
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    halves = values.reshape(heads, 2, -1, values.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
