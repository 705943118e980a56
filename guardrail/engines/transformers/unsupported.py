"""Ways of generating that never call the guarded prefill, or call it in pieces: refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.errors import PromptError, UnsupportedGeneration

ARGUMENTS: Mapping[str, str] = {
    "assistant_model": "assisted decoding",
    "custom_generate": "custom generation loops",
    "inputs_embeds": "prompts given as embeddings",
    "negative_prompt_ids": "classifier-free guidance",
}
SETTINGS: Mapping[str, str] = {
    "prompt_lookup_num_tokens": "prompt-lookup decoding",
    "assistant_early_exit": "self-speculative decoding",
    "prefill_chunk_size": "chunked prefill",
    "guidance_scale": "classifier-free guidance",
    "dola_layers": "DoLa decoding",
    "penalty_alpha": "contrastive search",
    "token_healing": "token healing",
}


def check_generation(kwargs: Mapping[str, Any], default_config: Any) -> None:
    """Raises UnsupportedGeneration for what the guard would not see."""
    for name, what in ARGUMENTS.items():
        if kwargs.get(name) is not None:
            raise UnsupportedGeneration(f"{what} (`{name}`) would bypass the guard and is not supported yet")
    for name, what in SETTINGS.items():
        value = setting(name, kwargs, default_config)
        if value is not None and value is not False and not (name == "guidance_scale" and value == 1):
            raise UnsupportedGeneration(f"{what} (`{name}`) would bypass the guard and is not supported yet")
    if setting("cache_implementation", kwargs, default_config) == "paged":
        raise UnsupportedGeneration(
            "continuous batching (`generate_batch`) would bypass the guard and is not supported yet"
        )


def check_followed(kwargs: Mapping[str, Any], default_config: Any, steers: bool) -> None:
    """Raises UnsupportedGeneration if replies cannot be followed: policies follow one reply per prompt."""
    for name, what in (("num_beams", "beam search"), ("num_return_sequences", "several replies to a prompt")):
        if int(setting(name, kwargs, default_config) or 1) > 1:
            raise UnsupportedGeneration(f"{what} (`{name}`) cannot be followed by response policies")
    if steers and setting("use_cache", kwargs, default_config) is False:
        raise UnsupportedGeneration("response policies cannot steer without a cache (`use_cache: false`)")


def end_ids(kwargs: Mapping[str, Any], default_config: Any) -> list[int]:
    """The ids of tokens that are not part of a reply: ends of sequence and padding."""
    import torch

    found: list[int] = []
    for name in ("eos_token_id", "pad_token_id"):
        value = setting(name, kwargs, default_config)
        value = value.tolist() if isinstance(value, torch.Tensor) else value
        found += value if isinstance(value, list) else [] if value is None else [value]
    return found


def setting(name: str, kwargs: Mapping[str, Any], default_config: Any) -> Any:
    """What `generate` will use: the argument, else the given configuration, else the model's own."""
    value = kwargs.get(name)
    if value is None:
        value = getattr(kwargs.get("generation_config"), name, None)
    return getattr(default_config, name, None) if value is None else value


def prompt_ids(kwargs: Mapping[str, Any]) -> Any:
    """The token ids [prompts, tokens] given to `generate`. Raises PromptError if there are none."""
    import torch

    ids = kwargs.get("input_ids", kwargs.get("inputs"))
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.numel() == 0:
        raise PromptError("give `input_ids` of shape [prompts, tokens], with at least one token")
    return ids
