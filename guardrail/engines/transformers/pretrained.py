"""Loading a model by name: a hub id, a folder, a GGUF file, or `demo`, the built-in model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardrail.engines.transformers import gguf
from guardrail.errors import ModelError

DEMO = "demo"
SHARED = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code")
"""Arguments that the configuration and the tokenizer get too."""


def load_pretrained(name: str, arguments: Mapping[str, Any], tokenizer: Any = None) -> tuple[Any, Any]:
    """(model, tokenizer), in eval mode. Raises ModelError if either cannot be loaded.

    arguments: those of `AutoModelForCausalLM.from_pretrained`; `gguf_file` names one of several files.
    tokenizer: for a folder that has none of its own.
    """
    source, others = model_path(name), dict(arguments)
    shared = {key: others[key] for key in SHARED if key in others}
    file = gguf.find(source, others.pop("gguf_file", None), shared)
    try:
        return gguf.load(file, others) if file else _load(source, others, shared, tokenizer)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _unknown(name, error) from error


def configuration(name: str, arguments: Mapping[str, Any]) -> Any:
    """The configuration of a model that is not loaded. Raises ModelError if there is no such model."""
    from transformers import AutoConfig

    source = model_path(name)
    file = gguf.find(source)
    try:
        if file:
            with gguf.alone(file) as place:
                return AutoConfig.from_pretrained(**place, **arguments)
        return AutoConfig.from_pretrained(source, **arguments)
    except (OSError, ValueError, KeyError) as error:
        raise _unknown(name, error) from error


def _unknown(name: str, error: Exception) -> ModelError:
    # transformers takes a misspelt path for a hub id and blames the connection
    here = (
        ""
        if name == DEMO or Path(name).exists()
        else "there is no such file or folder here, and as a hub id: "
    )
    return ModelError(f"{name} cannot be loaded: {here}{error}")


def _load(
    source: str, arguments: Mapping[str, Any], shared: Mapping[str, Any], tokenizer: Any
) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(source, **shared)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{source} is an encoder-decoder model; only decoder-only ones are guarded")
    tokenizer = AutoTokenizer.from_pretrained(source, **shared) if tokenizer is None else tokenizer
    model = AutoModelForCausalLM.from_pretrained(source, **{"dtype": "auto", **arguments})
    return model.eval(), tokenizer


def model_path(name: str) -> str:
    """The name or path that transformers loads."""
    from guardrail import demo

    return str(demo.MODEL) if name == DEMO else name
