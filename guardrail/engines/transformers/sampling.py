"""Our sampling options as arguments of `generate`, without touching the model's generation config."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from guardrail.types import Sampling


def generation_arguments(sampling: Sampling, model: Any, tokenizer: Any) -> dict[str, Any]:
    """What is not given is left to the model's own generation config."""
    arguments: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens}
    pad = model.generation_config.pad_token_id
    if pad is None:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    arguments["pad_token_id"] = pad
    if sampling.temperature is not None:
        arguments |= _temperature(sampling.temperature)
    if sampling.top_p is not None:
        arguments["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        arguments["top_k"] = sampling.top_k
    if sampling.stop:
        arguments |= {
            "stop_strings": [sampling.stop] if isinstance(sampling.stop, str) else list(sampling.stop),
            "tokenizer": tokenizer,
        }
    return arguments


def _temperature(temperature: float) -> dict[str, Any]:
    if temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": temperature}


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Generator[None]:
    """Seed what is sampled inside and leave the caller's random state as it was; None does nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
