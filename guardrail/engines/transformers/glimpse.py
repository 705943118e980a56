"""What the files of a model say of it before it is loaded, which takes minutes for a large one."""

from __future__ import annotations

from typing import Any

from guardrail.engines.transformers import gguf
from guardrail.engines.transformers.pretrained import model_path
from guardrail.errors import ModelError
from guardrail.types import Glimpse


def glimpse(name: str) -> Glimpse | None:
    """The sizes, and of a GGUF file the weights' identity. None if nothing can be told; loading says why."""
    source = model_path(name)
    try:
        file = gguf.find(source)
        return gguf.glimpse(file) if file else _configured(source)
    except (ModelError, OSError, ValueError, KeyError):
        return None


def _configured(source: str) -> Glimpse | None:
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(source, local_files_only=True).get_text_config(decoder=True)
    sizes = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    return Glimpse(*sizes) if all(isinstance(size, int) for size in sizes) else None  # type: ignore[arg-type]
