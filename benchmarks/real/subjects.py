"""Opens a real model for the tables of this folder."""

from __future__ import annotations

import torch

from benchmarks.real.mixed_steering import MixedSubject
from benchmarks.real.models import RealModel, fetch
from guardrail.engines.transformers.pretrained import load_pretrained


def subject(model: RealModel, dtype: torch.dtype = torch.bfloat16, rows: int = 64) -> MixedSubject:
    """The model, on one thread of the CPU. rows: the largest batch. A base model gets the plain template."""
    torch.set_num_threads(1)
    loaded, tokenizer = load_pretrained(str(fetch(model)), {"dtype": dtype})
    template = None if tokenizer.chat_template else "builtin:plain"
    return MixedSubject(loaded, tokenizer, chat_template=template, rows=rows)
