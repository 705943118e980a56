"""Models with known shapes and random weights, built on the device that runs them.

Sizes are those of the published configurations: Qwen2.5 0.5B, 7B and 14B, Llama 3.1 8B and Llama 3.2 1B (the
body of Llama Guard 3 1B), and mDeBERTa v3 base (the body of Prompt Guard 86M).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A named model configuration."""

    name: str
    architecture: str
    settings: Mapping[str, Any]
    kind: Literal["decoder", "encoder"] = "decoder"

    def config(self) -> Any:
        """The transformers configuration. Replies never end by themselves."""
        from transformers import AutoConfig

        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        return AutoConfig.for_model(self.architecture, **self.settings, **special)

    @property
    def layers(self) -> int:
        """The number of blocks."""
        return int(self.settings["num_hidden_layers"])

    @property
    def read(self) -> tuple[int, ...]:
        """Three layers to read, the last in the middle of the model."""
        return tuple(sorted({max(1, self.layers // 4), max(1, self.layers * 3 // 8), self.layers // 2}))


def random_model(shape: Shape, device: str, dtype: str = "bfloat16", seed: int = 0) -> Any:
    """A model with the same weights each time, built on the device."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kinds = {"decoder": AutoModelForCausalLM, "encoder": AutoModelForSequenceClassification}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with torch.device(device):
            made = kinds[shape.kind].from_config(shape.config(), dtype=getattr(torch, dtype))
    return made.eval()


def _decoder(
    name: str,
    architecture: str,
    sizes: tuple[int, int, int],
    heads: tuple[int, int],
    vocabulary: int,
    tied: bool = False,
    **more: Any,
) -> Shape:
    """sizes: width, MLP width, blocks; heads: for queries, for keys and values."""
    settings = {
        "hidden_size": sizes[0],
        "intermediate_size": sizes[1],
        "num_hidden_layers": sizes[2],
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 16384,
        **more,
    }
    return Shape(name=name, architecture=architecture, settings=settings)


def _llama3(name: str, sizes: tuple[int, int, int], tied: bool) -> Shape:
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    return _decoder(name, "llama", sizes, (32, 8), 128256, tied, rope_parameters=rope)


def _encoder(name: str, width: int, blocks: int, heads: int, vocabulary: int) -> Shape:
    settings = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": ENCODER_WINDOW,
        "relative_attention": True,
        "position_buckets": 256,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
        "num_labels": 2,
    }
    return Shape(name=name, architecture="deberta-v2", settings=settings, kind="encoder")


ENCODER_WINDOW = 512

QWEN_05B = _decoder("Qwen2.5-0.5B shape", "qwen2", (896, 4864, 24), (14, 2), 151936, tied=True)
QWEN_7B = _decoder("Qwen2.5-7B shape", "qwen2", (3584, 18944, 28), (28, 4), 152064)
QWEN_14B = _decoder("Qwen2.5-14B shape", "qwen2", (5120, 13824, 48), (40, 8), 152064)
LLAMA_8B = _llama3("Llama-3.1-8B shape", (4096, 14336, 32), tied=False)
LLAMA_1B = _llama3("Llama-3.2-1B shape", (2048, 8192, 16), tied=True)
DEBERTA = _encoder("mDeBERTa-v3-base shape", 768, 12, 12, 251000)

TINY = _decoder("tiny", "qwen2", (64, 128, 8), (4, 2), 512, tied=True)
TINY_LLAMA = _decoder("tiny Llama", "llama", (64, 128, 4), (4, 2), 512, tied=True)
TINY_DECODER = _decoder("tiny decoder", "llama", (96, 192, 6), (4, 2), 512, tied=True)
TINY_ENCODER = _encoder("tiny encoder", 64, 4, 4, 512)
