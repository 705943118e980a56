"""The built-in engine as a plugin. Torch and nnsight load when an engine is made, not before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from guardrail.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.engines import Engine


@hookimpl
def guardrail_engine(
    name: str,
    model: object,
    tokenizer: object,
    chat_template: str | None,
    template_arguments: Mapping[str, object] | None,
) -> Engine | None:
    """`transformers`."""
    if name != "transformers":
        return None
    from guardrail.engines.transformers import TransformersEngine

    return TransformersEngine(model, tokenizer, chat_template, template_arguments)
