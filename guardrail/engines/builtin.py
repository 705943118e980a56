"""The built-in engines as a plugin. Torch and nnsight load when an engine is made, not before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from guardrail.plugins.hookspecs import ENGINES, hookimpl

if TYPE_CHECKING:
    from guardrail.engines import Engine


@hookimpl
def guardrail_engines() -> Sequence[str]:
    """All built-in engines."""
    return ENGINES


@hookimpl
def guardrail_model(name: str, arguments: Mapping[str, object]) -> tuple[object, object] | None:
    """A model of transformers and its tokenizer, for every engine whose plugin loads no other."""
    from guardrail.engines.transformers.pretrained import load_pretrained

    return load_pretrained(name, arguments)


@hookimpl
def guardrail_engine(
    name: str,
    model: object,
    tokenizer: object,
    chat_template: str | None,
    template_arguments: Mapping[str, object] | None,
) -> Engine | None:
    """`transformers` and its variants: nnsight only, hooks only, hooks that do not wait, batches."""
    if name not in ENGINES:
        return None
    if name == "transformers-batching":
        from guardrail.engines.transformers.continuous.engine import BatchingEngine

        return BatchingEngine(model, tokenizer, chat_template, template_arguments)
    from guardrail.engines.transformers.engine import TransformersEngine
    from guardrail.engines.transformers.hooks import Hooked
    from guardrail.engines.transformers.nnsight import Traced

    ahead = name == "transformers-ahead"
    prefill = Hooked if ahead or name == "transformers-hooks" else Traced
    decode = Traced if name == "transformers-nnsight" else Hooked
    return TransformersEngine(model, tokenizer, chat_template, template_arguments, prefill, decode, ahead)
