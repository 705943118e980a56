"""vLLM under guardrail. Importing this imports no vLLM: what needs it says which package is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.engines import Engine

NAME = "vllm"


@hookimpl
def guardrail_engines() -> Sequence[str]:
    """`vllm`."""
    return [NAME]


@hookimpl
def guardrail_model(engine: str, name: str, arguments: Mapping[str, object]) -> tuple[object, object] | None:
    """A model for the engine `vllm`, which loads the weights itself."""
    if engine != NAME:
        return None
    from guardrail_vllm.model import load
    from guardrail_vllm.versions import require_vllm

    require_vllm()
    return load(name, arguments)


@hookimpl
def guardrail_engine(
    name: str,
    model: object,
    tokenizer: object,
    chat_template: str | None,
    template_arguments: Mapping[str, object] | None,
) -> Engine | None:
    """The engine `vllm`, around a model's name or what `guardrail_model` gave."""
    if name != NAME:
        return None
    from guardrail_vllm.engine import VllmEngine
    from guardrail_vllm.versions import require_vllm

    require_vllm()
    return VllmEngine.around(model, tokenizer, chat_template, template_arguments)
