"""A second model that judges the prompt before the first one answers, which is how most guards work.

Random weights, real shapes. An encoder classifies the prompt in windows of 512 tokens. A decoder reads the
same tokens and writes two, `safe` and an end token; its instructions, about 200 more tokens, are left out in
its favour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guardrail.bench import shapes
from guardrail.bench.cases import endless, greedy, random_ids
from guardrail.bench.clocks import Call
from guardrail.bench.memory import parameters
from guardrail.bench.shapes import ENCODER_WINDOW, Shape, random_model

VERDICT_TOKENS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """A guard model with a given shape."""

    name: str
    shape: Shape

    def bytes(self, dtype: str) -> int:
        """The memory of its weights."""
        import torch

        return parameters(self.shape.config(), self.shape.kind) * getattr(torch, dtype).itemsize

    def judging(self, device: str, dtype: str, tokens: int, rows: int) -> Call:
        """A call that judges a batch and returns the verdict to the host."""
        model = random_model(self.shape, device, dtype)
        if self.shape.kind == "encoder":
            return _classifying(model, tokens, rows)
        ids = random_ids(self.shape.settings["vocab_size"], tokens, rows).to(device)
        return _writing(model, ids)


def _classifying(model: Any, tokens: int, rows: int) -> Call:
    import torch

    windows = -(-tokens // ENCODER_WINDOW)
    ids = random_ids(model.config.vocab_size, min(tokens, ENCODER_WINDOW), rows * windows).to(model.device)
    mask = torch.ones_like(ids)

    def judge() -> object:
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=mask).logits.tolist()

    return judge


def _writing(model: Any, ids: Any) -> Call:
    import torch

    arguments = greedy({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, VERDICT_TOKENS)
    endless(model)
    return lambda: model.generate(**arguments).tolist()


SECONDS: Mapping[str, Second] = {
    second.name: second
    for second in (
        Second(name="prompt-guard-86m", shape=shapes.DEBERTA),
        Second(name="llama-guard-1b", shape=shapes.LLAMA_1B),
        Second(name="llama-guard-8b", shape=shapes.LLAMA_8B),
    )
}
"""The second models by their name for `--against`."""
