"""A real tokenizer and real models with random weights, small enough for every test. Torch loads lazily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guardrail.errors import ConfigError
from guardrail.types import Fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD, START, END = "<pad>", "<s>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role: ' ~ message['role']) }}{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SLIDING_WINDOW = 8

_WINDOWED = ("sliding_attention", "full_attention")
_ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": SLIDING_WINDOW, "layer_types": _WINDOWED},
    "mistral": {"sliding_window": SLIDING_WINDOW, "head_dim": 8},
    "gpt2": {},
    "gpt_neox": {},
    "phi3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
}
ARCHITECTURES: tuple[str, ...] = tuple(_ARCHITECTURES)
"""The architectures of `tiny_model`. gemma3_text and mistral attend to a window of SLIDING_WINDOW tokens."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, so lossless for any text; with a chat template and special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [PAD, START, END, *ROLES, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_model(
    architecture: str = "llama", layers: int = 4, d_model: int = 32, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """A float32 model with random weights in evaluation mode; `overrides` go to its configuration.

    The same arguments give the same weights; the global random state does not change.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = _settings(architecture, layers, d_model) | overrides
    config = AutoConfig.for_model(architecture, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()


def _settings(architecture: str, layers: int, d_model: int) -> dict[str, Any]:
    if architecture not in _ARCHITECTURES:
        raise ConfigError(f"no tiny `{architecture}`; available: {', '.join(ARCHITECTURES)}")
    settings = {
        "hidden_size": d_model,
        "intermediate_size": 2 * d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "vocab_size": 256 + 3 + len(ROLES),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        # at this width, 0.02 gives nearly constant logits, which would hide differences
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        **_ARCHITECTURES[architecture],
    }
    if "layer_types" in settings:
        settings["layer_types"] = [_WINDOWED[i % 2] for i in range(layers)]
    if architecture in ("gpt2", "gpt_neox"):
        settings.pop("num_key_value_heads")
    return settings


def tiny_fingerprint(layers: int = 4, d_model: int = 32) -> Fingerprint:
    """A fingerprint with the right sizes, for vectors without a model file."""
    return Fingerprint(
        architecture="llama",
        layers=layers,
        d_model=d_model,
        vocab_size=256 + 3 + len(ROLES),
        weights="tiny",
        tokenizer="tiny",
        chat_template="tiny",
    )
