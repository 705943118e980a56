"""The benchmark cases: two calls that do equal work, and a check that the first one did.

The calls are `model.generate` with greedy replies of a fixed length, and one forward pass over the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guardrail.bench.clocks import Call, Stopwatch, token_marks

if TYPE_CHECKING:
    from torch import Tensor

FIRST_ORDINARY_TOKEN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Two calls to compare. `holds` checks the first result against the second."""

    name: str
    guarded: Callable[[], Any]
    bare: Callable[[], Any]
    holds: Callable[[Any, Any], bool]


def endless(model: Any) -> Any:
    """A model whose replies never end early, so that all calls do equal work."""
    model.generation_config.eos_token_id = None
    return model


def random_ids(vocabulary: int, tokens: int, rows: int = 1) -> Tensor:
    """[rows, tokens] random ids without special tokens, the same each time."""
    import torch

    source = torch.Generator().manual_seed(0)
    return torch.randint(FIRST_ORDINARY_TOKEN, vocabulary, (rows, tokens), generator=source)


def inputs(model: Any, tokens: int, rows: int = 1) -> dict[str, Tensor]:
    """A made-up batch on the model's device, without padding."""
    import torch

    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    ids = random_ids(vocabulary, tokens, rows).to(model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def greedy(batch: dict[str, Tensor], tokens: int, marked: Stopwatch | None = None) -> dict[str, Any]:
    """Arguments of `generate` for exactly `tokens` new tokens, each marked on the stopwatch."""
    marks = {} if marked is None else {"stopping_criteria": token_marks(marked)}
    lengths = {"max_new_tokens": tokens, "min_new_tokens": tokens}
    return {**batch, **lengths, "do_sample": False, "pad_token_id": 0, **marks}


def plainly(model: Any, arguments: dict[str, Any]) -> Callable[[], Tensor]:
    """`model.generate`."""
    return lambda: model.generate(**arguments)


def prefilling(model: Any, batch: dict[str, Tensor]) -> Call:
    """One forward pass over the prompt that fills a cache and computes the last position's logits."""
    import torch

    def prefill() -> object:
        with torch.no_grad():
            return model(**batch, use_cache=True, logits_to_keep=1)

    return prefill
