"""A model that vLLM is to load: its name, and what vLLM is told about it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from guardrail.engines.transformers import gguf
from guardrail.engines.transformers.pretrained import SHARED, model_path
from guardrail.engines.transformers.unpacking import unpack
from guardrail.errors import ModelError
from guardrail_vllm.flags import EXTENSION, LOGITS, SCHEDULER

log = logging.getLogger("guardrail")

SETTINGS = "GUARDRAIL_VLLM"
"""The environment variable with more arguments of vLLM, as JSON: for the command line."""
OWN: Mapping[str, Any] = {
    "worker_extension_cls": EXTENSION,
    "scheduler_cls": SCHEDULER,
    "disable_log_stats": True,
    "enable_log_requests": False,
}
"""What the guard needs. Logs of requests would hold their tokens."""
EAGER: Mapping[str, Any] = {"enforce_eager": True}
"""Unless something else is said: what compiled layers cost on a GPU was not measured."""
GRAPHS: Mapping[str, Any] = {"cudagraph_mode": "PIECEWISE"}
"""CUDA graphs of compiled layers: full ones would repeat a look that was taken once."""
RENAMED = {"token": "hf_token", "cache_dir": "download_dir"}
"""Arguments of transformers that vLLM calls otherwise."""
ENVIRONMENT: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""vLLM's, unless they are set: nothing is sent home, the tested runner is used, and results stay alone."""
CPU_CACHE = 1 << 30
"""Bytes of the KV cache on a CPU, unless something else is asked for."""
INSTEAD: Mapping[str, str] = {
    "device_map": "vLLM spreads a model itself: tensor_parallel_size",
    "quantization_config": "vLLM has its own names for quantisation: quantization='bitsandbytes'",
    "attn_implementation": "vLLM chooses its attention itself: attention_backend",
}


@dataclass(frozen=True)
class VllmModel:
    """A hub id or folder, and arguments of vLLM (`AsyncEngineArgs`)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to(self, device: str) -> VllmModel:
        """The same. Raises ModelError for a device that the installed vLLM is not made for."""
        from vllm.platforms import current_platform

        here = current_platform.device_type
        if str(device).partition(":")[0] != here:
            raise ModelError(f"the installed vLLM runs models on {here}, not on {device}")
        return self

    def _stored(self) -> str:
        """The type of the weights in their files: by itself, vLLM would halve float32."""
        from transformers import AutoConfig

        known = {key: self.arguments[key] for key in SHARED if key in self.arguments}
        try:
            config = AutoConfig.from_pretrained(self.name, **known).get_text_config(decoder=True)
        except (OSError, ValueError, KeyError):
            # vLLM says better what is wrong
            return "auto"
        return str(getattr(config, "dtype", None) or "auto")

    def engine_arguments(self) -> Any:
        """All arguments of vLLM. Raises ModelError for those that it does not know or the guard needs."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform

        given = _translated({"dtype": self._stored(), **EAGER, **self.arguments, **_from_environment()})
        _check(given, {one.name for one in fields(AsyncEngineArgs)})
        explicit = "kv_cache_memory_bytes" in given or "VLLM_CPU_KVCACHE_SPACE" in os.environ
        cache = {} if explicit or not current_platform.is_cpu() else {"kv_cache_memory_bytes": CPU_CACHE}
        processors = [*(given.pop("logits_processors", None) or ()), LOGITS]
        compilation = _compilation(given.pop("compilation_config", None))
        return AsyncEngineArgs(
            model=self.name,
            logits_processors=processors,
            compilation_config=compilation,
            **{**cache, **given, **OWN},
        )


def settle() -> None:
    """Set what vLLM reads when it is imported, also in its processes."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def load(name: str, arguments: Mapping[str, Any]) -> tuple[VllmModel, Any]:
    """The model, which vLLM loads later, and its tokenizer. Raises ModelError."""
    from transformers import AutoTokenizer

    settle()
    source, others = model_path(name), dict(arguments)
    shared = {key: arguments[key] for key in SHARED if key in arguments}
    if file := gguf.find(source, others.pop("gguf_file", None), shared):
        source = str(unpacked(file))
    try:
        return VllmModel(source, others), AutoTokenizer.from_pretrained(source, **shared)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{name} cannot be loaded: {error}") from error


def unpacked(file: Path) -> Path:
    """A folder with the weights of a GGUF file, which vLLM cannot load: made once. Raises ModelError."""
    from huggingface_hub.constants import HF_HOME

    folder = Path(HF_HOME) / "guardrail" / gguf.identity(file).replace(":", "-")
    if not folder.exists():
        log.warning("vLLM cannot load GGUF files: unpacking %s into %s", file, folder)
    return unpack(file, folder)


def _from_environment() -> dict[str, Any]:
    try:
        found = json.loads(os.environ.get(SETTINGS) or "{}")
    except ValueError as error:
        raise ModelError(f"{SETTINGS} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f'{SETTINGS} must be an object: {{"max_model_len": 4096}}')
    return found


def _translated(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {RENAMED.get(key, key): value for key, value in given.items() if key != "local_files_only"}
    if "dtype" in found:
        found["dtype"] = str(found["dtype"]).removeprefix("torch.")
    return found


def _compilation(given: Any) -> Any:
    """The user's, with graphs that can be guarded."""
    return {**GRAPHS, **(given or {})} if isinstance(given, Mapping | None) else given


def _check(given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name in INSTEAD:
            raise ModelError(f"the engine `vllm` does not take `{name}`; {INSTEAD[name]}")
        if name in OWN and given[name] != OWN[name]:
            raise ModelError(f"the guard sets vLLM's `{name}` to {OWN[name]!r}; leave it out")
        if name not in known:
            raise ModelError(f"vLLM has no argument `{name}`")
