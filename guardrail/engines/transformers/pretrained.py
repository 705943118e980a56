"""Loading a model by name: a hub id, a folder, or `demo`, the built-in model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.errors import ModelError

DEMO = "demo"


def load_pretrained(name: str, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """(model, tokenizer), in eval mode. Raises ModelError if either cannot be loaded."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = model_path(name)
    shared = {
        key: arguments[key]
        for key in ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code")
        if key in arguments
    }
    try:
        config = AutoConfig.from_pretrained(source, **shared)
        if getattr(config, "is_encoder_decoder", False):
            raise ModelError(f"{name} is an encoder-decoder model; only decoder-only ones are guarded")
        tokenizer = AutoTokenizer.from_pretrained(source, **shared)
        model = AutoModelForCausalLM.from_pretrained(source, **{"dtype": "auto", **arguments})
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{name} cannot be loaded: {error}") from error
    return model.eval(), tokenizer


def model_path(name: str) -> str:
    """The name or path that transformers loads."""
    from guardrail import demo

    return str(demo.MODEL) if name == DEMO else name
