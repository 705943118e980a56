"""Estimates memory before anything is loaded, and measures the peak memory of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.bench.clocks import Call
from guardrail.bench.results import Point

GIB, MIB = 1 << 30, 1 << 20
ACTIVATIONS = 12
"""An upper estimate of the residual streams that are alive at once in a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes: the weights of one copy, and the cache and activations per token of a batch."""

    weights: int
    cache_per_token: int
    activations_per_token: int
    logits_per_row: int
    longest: int | None = None
    """The maximum number of tokens of the model."""

    def working(self, point: Point, new_tokens: int) -> int:
        """The memory that one call needs in addition to the weights."""
        cached = point.batch * (point.prompt + new_tokens) * self.cache_per_token
        active = point.batch * point.prompt * self.activations_per_token
        return cached + active + point.batch * self.logits_per_row


def sizes_of_pretrained(name: str, arguments: Mapping[str, Any]) -> Sizes:
    """Sizes from the configuration alone. Raises ModelError if the model does not exist."""
    from guardrail.engines.transformers.pretrained import configuration, model_path

    source, config = model_path(name), configuration(name, arguments)
    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    return sizes(config, sum(file.stat().st_size for file in files) or None)


def sizes(config: Any, weights: int | None = None) -> Sizes:
    """Sizes of a model with this configuration; weights in bytes, if known."""
    text = config.get_text_config(decoder=True)
    width = _bytes_of(config)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return Sizes(
        weights=weights or parameters(config) * width,
        cache_per_token=2 * text.num_hidden_layers * heads * head * width,
        activations_per_token=(ACTIVATIONS * text.hidden_size + 3 * inner) * width,
        logits_per_row=2 * text.vocab_size * 4,
        longest=getattr(text, "max_position_embeddings", None),
    )


def parameters(config: Any, kind: str = "decoder") -> int:
    """The number of parameters of a model with this configuration, without building it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kinds = {"decoder": AutoModelForCausalLM, "encoder": AutoModelForSequenceClassification}
    with torch.device("meta"):
        model = kinds[kind].from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def _bytes_of(config: Any) -> int:
    import torch

    dtype = getattr(config, "dtype", None) or torch.float32
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return dtype.itemsize


def available(device: str) -> int:
    """Free bytes on a device, or in this machine or container."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return min(_meminfo("MemAvailable"), _container())


def _meminfo(name: str) -> int:
    lines = _lines(Path("/proc/meminfo"))
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 1 << 62)


def _container() -> int:
    folder = Path("/sys/fs/cgroup")
    limit, used = _lines(folder / "memory.max"), _lines(folder / "memory.current")
    known = limit and used and limit[0].isdigit()
    return int(limit[0]) - int(used[0]) if known else 1 << 62


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


# --- the highest point of a call ----------------------------------------------------------------------


def peak_mib(call: Call, device: str) -> float | None:
    """Run the call and return its peak in MiB, on the device or resident in memory; None if unknown."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / MIB
    return _resident(call)


def _resident(call: Call) -> float | None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    call()
    lines = _lines(Path("/proc/self/status"))
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
