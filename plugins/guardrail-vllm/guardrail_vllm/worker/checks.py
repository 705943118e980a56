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
    yield from _uncompilable(config.compilation_config)


def _uncompilable(compilation: Any) -> Iterator[str]:
    if compilation.use_inductor_graph_partition:
        yield "use_inductor_graph_partition cannot be guarded: it was not tried"
    graphs = compilation.cudagraph_mode
    if graphs is not None and graphs.has_full_cudagraphs():
        yield (
            "full CUDA graphs cannot be guarded, because they repeat a look that was taken once: pass "
            "--compilation-config.cudagraph_mode=PIECEWISE, or --enforce-eager"
        )
