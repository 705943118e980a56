"""Finding a model's decoder blocks, and refusing models that cannot be guarded, with the reason."""

from __future__ import annotations

from typing import Any

from torch import nn

from guardrail.errors import ModelError

SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")
BLOCK_LISTS = ("layers", "h", "blocks", "block")
PLAIN_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper. Raises ModelError for prompt-learning adapters."""
    configs = getattr(model, "peft_config", None)
    if not hasattr(model, "get_base_model") or not configs:
        return model
    if any(getattr(config, "is_prompt_learning", False) for config in configs.values()):
        raise ModelError(
            "prompt-learning adapters put tokens in front of the prompt that the guard cannot see"
        )
    return model.get_base_model()


def check_supported(model: Any) -> None:
    """Raises ModelError unless this is a decoder-only language model with attention in every block."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "generate"):
        raise ModelError(f"{type(model).__name__} is not a transformers model that generates")
    if missing := [size for size in SIZES if not hasattr(text_config(model), size)]:
        raise ModelError(
            f"{type(model).__name__} does not say its {' and '.join(missing)}; it is not guarded"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder model; only decoder-only ones are guarded"
        )
    if getattr(model, "_is_stateful", False):
        raise ModelError(
            f"{type(model).__name__} keeps a recurrent state; state-space and hybrid models are not guarded"
        )
    kinds = set(getattr(text_config(model), "layer_types", None) or ()) - PLAIN_LAYERS
    if kinds:
        raise ModelError(
            f"{type(model).__name__} has {', '.join(sorted(kinds))} blocks; hybrid models are not guarded"
        )
    if not hasattr(model, "_prefill"):
        raise ModelError(
            "this version of transformers has no separate prefill; transformers >= 5.16 is needed"
        )


def text_config(model: Any) -> Any:
    """The configuration of the language part, also of a vision model."""
    return model.config.get_text_config(decoder=True)


def decoder_blocks(model: Any) -> nn.ModuleList:
    """The decoder blocks, in order. Raises ModelError if they cannot be found."""
    count = text_config(model).num_hidden_layers
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    found = [getattr(decoder, name) for name in BLOCK_LISTS if _is_list(getattr(decoder, name, None), count)]
    found += [m for name, m in model.named_modules() if _is_list(m, count) and "vision" not in name]
    if not found:
        raise ModelError(f"{type(model).__name__}: no list of {count} decoder blocks was found")
    return found[0]


def decoder_of(model: nn.Module, blocks: nn.ModuleList) -> nn.Module:
    """The module that holds the blocks and runs them."""
    return next(module for module in model.modules() if any(child is blocks for child in module.children()))


def _is_list(module: object, count: int) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) == count


def output_projection(attention: nn.Module) -> nn.Module:
    """What mixes the heads of an attention into its output. Raises ModelError if it has no known name."""
    for name in ("o_proj", "c_proj", "dense", "out_proj", "wo"):
        if hasattr(attention, name):
            return getattr(attention, name)
    raise ModelError(
        f"{type(attention).__name__} has no known output projection, so no heads can be told apart"
    )


def head_count(model: Any) -> int:
    """How many query heads each attention has."""
    return int(text_config(model).num_attention_heads)


def submodule(block: nn.Module, component: str) -> nn.Module:
    """The attention or MLP of a block, whatever this architecture calls it."""
    names = {
        "attn": ("self_attn", "attn", "attention", "self_attention"),
        "mlp": ("mlp", "block_sparse_moe", "feed_forward", "moe"),
    }[component]
    for name in names:
        if hasattr(block, name):
            return getattr(block, name)
    raise ModelError(f"{type(block).__name__} has no known {component} module")
