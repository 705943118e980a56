"""What of vLLM cannot be guarded: refused before a model is loaded, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from guardrail.errors import ModelError


def check(config: Any) -> None:
    """Raises ModelError for a vLLM configuration under which prompts would be read wrongly, or not at all."""
    if found := list(_refused(config)):
        raise ModelError("; ".join(found))


def _refused(config: Any) -> Iterator[str]:
    if config.model_config.runner_type != "generate":
        yield f"a {config.model_config.runner_type} model generates no reply that could be guarded"
    if config.speculative_config is not None:
        yield "speculative decoding cannot be guarded: drafted tokens would be read before they are accepted"
    if config.use_v2_model_runner:
        yield "the guard needs vLLM's first model runner: set VLLM_USE_V2_MODEL_RUNNER=0"
    if config.parallel_config.pipeline_parallel_size > 1:
        yield "pipeline parallelism cannot be guarded: no worker sees all layers; use tensor parallelism"
    if config.parallel_config.enable_dbo:
        yield "dual batch overlap cannot be guarded: a pass is computed in two halves"
    if config.cache_config.kv_sharing_fast_prefill:
        yield "kv_sharing_fast_prefill cannot be guarded: layers skip the prompt"
    if config.kv_transfer_config is not None:
        yield "a KV connector cannot be guarded: the last prompt token may be computed elsewhere"
    # not the enumeration itself, which would load vLLM to look at it
    if config.compilation_config.mode != 0:
        yield "compiled layers cannot be read: pass enforce_eager=True (--enforce-eager)"
