"""What the guard understands of a call of `generate`: how it generates, and what the model reads.

Ways of generating that never call the guarded prefill, or call it in pieces, are refused. Arguments that the
guard does not know, but the model takes, are content that policies cannot read (pixels, audio, embeddings).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Any

from guardrail.engines.transformers.blocks import text_config
from guardrail.engines.transformers.caches import CACHES
from guardrail.errors import ModelError, PromptError, UnsupportedGeneration
from guardrail.policy.plan import Plan

ROWS = ("inputs", "input_ids", "attention_mask", "position_ids", "token_type_ids")
"""What the model reads of each row: tensors [prompts, tokens]."""
CALL = (
    *("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer"),
    *("synced_gpus", "tokenizer", "use_model_defaults", "trust_remote_code", "assistant_tokenizer"),
    *("logits_to_keep", "return_dict", "output_router_logits", "negative_prompt_attention_mask"),
)
"""What says how to generate, besides the fields of a GenerationConfig. Holds no content."""

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


MODES = ("greedy_search", "sample", "beam_search", "beam_sample")
"""The modes of generating whose every prompt goes through one prefill. Others are refused, known or new."""


def check_generation(kwargs: Mapping[str, Any], default_config: Any) -> None:
    """Raises UnsupportedGeneration for what the guard would not see."""
    for name, what in ARGUMENTS.items():
        if kwargs.get(name) is not None:
            raise _bypass(f"{what} (`{name}`)")
    for name, what in SETTINGS.items():
        value = setting(name, kwargs, default_config)
        if value is not None and value is not False and not (name == "guidance_scale" and value == 1):
            raise _bypass(f"{what} (`{name}`)")
    if setting("cache_implementation", kwargs, default_config) == "paged":
        raise _bypass("continuous batching (`generate_batch`)")
    mode = _effective(kwargs, default_config).get_generation_mode()
    if mode not in MODES:
        raise _bypass(f"the generation mode `{getattr(mode, 'value', mode)}`")


def _bypass(what: str) -> UnsupportedGeneration:
    return UnsupportedGeneration(f"{what} would bypass the guard and is not supported yet")


def _effective(kwargs: Mapping[str, Any], default_config: Any) -> Any:
    """The configuration that `generate` will use; see `setting`."""
    config = copy(default_config)
    given = kwargs.get("generation_config")
    for layer in (vars(given) if given is not None else {}, kwargs):
        known = {name: layer[name] for name in layer if name in vars(config) and layer[name] is not None}
        vars(config).update(known)
    return config


def unread(model: Any, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of arguments that the model reads and policies cannot, such as `pixel_values`.

    A name that the model does not take either is not one of them: its own `generate` refuses it.
    """
    given = [name for name, value in kwargs.items() if value is not None and name not in _understood()]
    return tuple(name for name in given if _takes(model, name, kwargs[name]))


@cache
def _understood() -> frozenset[str]:
    from transformers import GenerationConfig

    return frozenset((*vars(GenerationConfig()), *ROWS, *CACHES, *CALL, *ARGUMENTS, *SETTINGS))


def _takes(model: Any, name: str, value: Any) -> bool:
    # the model's own check, because a list of what it refuses would leave gaps between the two
    try:
        model._validate_model_kwargs({name: value})
    except ValueError:
        return False
    return True


def check_rows(kwargs: Mapping[str, Any], prompts: int, unread: tuple[str, ...]) -> None:
    """Raises PromptError for inputs that are not [prompts, tokens].

    Raises UnsupportedGeneration for `unread` arguments beside several prompts: nobody knows which part of
    them belongs to a row, and a row that is stopped leaves the batch.
    """
    mask, ids = kwargs.get("attention_mask"), prompt_ids(kwargs)
    for name in ROWS:
        value = kwargs.get(name)
        if value is not None and not _is_rows(value, prompts, shared=name == "position_ids"):
            shape = list(value.shape) if hasattr(value, "shape") else type(value).__name__
            raise PromptError(f"`{name}` has to be a dense tensor [{prompts} prompts, tokens], not {shape}")
    if mask is not None and mask.shape[1] < ids.shape[1]:
        raise PromptError(f"`attention_mask` has {mask.shape[1]} columns, and the prompts {ids.shape[1]}")
    if unread and prompts > 1:
        raise UnsupportedGeneration(
            f"rows of a batch may be stopped, and `{unread[0]}` cannot be split; give one prompt at a time"
        )


def check_followed(kwargs: Mapping[str, Any], default_config: Any, steers: bool) -> None:
    """Raises UnsupportedGeneration if replies cannot be followed: policies follow one reply per prompt."""
    for name, what in (("num_beams", "beam search"), ("num_return_sequences", "several replies to a prompt")):
        if int(setting(name, kwargs, default_config) or 1) > 1:
            raise UnsupportedGeneration(f"{what} (`{name}`) cannot be followed by response policies")
    if steers and setting("use_cache", kwargs, default_config) is False:
        raise UnsupportedGeneration("response policies cannot steer without a cache (`use_cache: false`)")


def _is_rows(value: Any, prompts: int, shared: bool) -> bool:
    import torch

    sizes = (prompts, 1) if shared else (prompts,)
    dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return dense and value.dim() == 2 and len(value) in sizes


def end_ids(kwargs: Mapping[str, Any], default_config: Any) -> list[int]:
    """The ids of tokens that are not part of a reply: ends of sequence and padding."""
    found: list[int] = []
    for name in ("eos_token_id", "pad_token_id"):
        found += _listed(setting(name, kwargs, default_config))
    return found


def _listed(value: Any) -> list[int]:
    import torch

    value = value.tolist() if isinstance(value, torch.Tensor) else value
    return value if isinstance(value, list) else [] if value is None else [value]


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


def held_columns(ids: Any, kwargs: Mapping[str, Any], default_config: Any) -> list[list[int]]:
    """The columns of the ids [prompts, tokens] that the model attends to, for each prompt.

    Without a mask `generate` leaves out padding, unless its token also ends replies.
    """
    mask = kwargs.get("attention_mask")
    if mask is None:
        ends = _listed(setting("eos_token_id", kwargs, default_config))
        pads = _listed(setting("pad_token_id", kwargs, default_config))
        if not pads or pads[0] in ends:
            return [list(range(ids.shape[1]))] * len(ids)
        mask = ids != pads[0]
    return [row.nonzero()[:, 0].tolist() for row in mask.cpu()[:, -ids.shape[1] :]]


def read_ids(kwargs: Mapping[str, Any], vocabulary: int) -> Any:
    """The token ids on the host. Raises PromptError for what the model's embedding would stumble over."""
    import torch

    ids = prompt_ids(kwargs)
    if ids.layout != torch.strided:
        raise PromptError("`input_ids` is a sparse tensor; give `input_ids.to_dense()`")
    if ids.dtype not in (torch.int64, torch.int32):
        raise PromptError(f"`input_ids` is of {ids.dtype}, but token ids are whole numbers; give torch.int64")
    ids = ids.cpu()  # one copy, because each one waits for the device
    bad = ids[(ids < 0) | (ids >= vocabulary)]
    if bad.numel():
        raise PromptError(
            f"`input_ids` holds {int(bad[0])}, but this model's ids are 0 to {vocabulary - 1}; use its own "
            "tokenizer, and its padding token for padding"
        )
    return ids


def check_steering(inner: Any, plan: Plan) -> None:
    """Raises ModelError for a plan that steers below the last layer read, if its cache cannot be cropped."""
    from transformers import DynamicCache

    if not plan.may_recompute:
        return
    windowed = getattr(text_config(inner), "sliding_window", None)
    if windowed and not hasattr(DynamicCache, "activate_past_recording"):
        raise ModelError(
            "steering below the last layer read needs a cache that can be cropped; this version of "
            "transformers cannot crop a sliding window; steer at or above the last layer read"
        )
