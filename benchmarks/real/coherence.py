"""Whether a reply makes sense, by program: how likely it is, and how much it repeats itself.

The limits were set before any reply was seen. Neither number knows whether a reply is true, or to the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.extract.subject import Subject
from guardrail.types import Message

MOST_PERPLEXITY = 20.0
"""Of a reply under the unsteered model, given the question alone."""
LEAST_DISTINCT = 0.7
"""Different runs of three words, among all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fluency:
    """One reply: its perplexity, and the share of its runs of three words that are different."""

    perplexity: float
    distinct: float

    @property
    def coherent(self) -> bool:
        """Neither unlikely nor repetitive."""
        return self.perplexity <= MOST_PERPLEXITY and self.distinct >= LEAST_DISTINCT


def distinct(text: str, run: int = 3) -> float:
    """The share of different runs of words; 0 for no words, 1 for too few to repeat."""
    words = text.lower().split()
    runs = [tuple(words[i : i + run]) for i in range(len(words) - run + 1)]
    if not runs:
        return float(bool(words))
    return len(set(runs)) / len(runs)


def fluency(subject: Subject, prompts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[Fluency]:
    """Of each reply to its prompt, under the unsteered model."""
    found = perplexities(subject, prompts, replies)
    return [
        Fluency(perplexity=perplexity, distinct=distinct(reply))
        for perplexity, reply in zip(found, replies, strict=True)
    ]


def perplexities(
    subject: Subject, prompts: Sequence[Sequence[Message]], replies: Sequence[str]
) -> list[float]:
    """exp of the mean negative log-likelihood of each reply's tokens; infinite for an empty reply."""
    begun = [list(subject.render(messages).ids) for messages in prompts]
    ends = [subject.tokenizer(reply, add_special_tokens=False)["input_ids"] for reply in replies]
    found = [float("inf")] * len(replies)
    rows = [a + b for a, b in zip(begun, ends, strict=True)]
    for batch in subject.batches([len(row) for row in rows]):
        logits = _log_probabilities(subject, [rows[i] for i in batch])
        for place, i in enumerate(batch):
            if ends[i]:
                found[i] = _perplexity(logits[place], rows[i], len(begun[i]))
    return found


def _log_probabilities(subject: Subject, rows: Sequence[Sequence[int]]) -> Tensor:
    ids, mask = subject.local.padded(rows, left=False)
    with torch.inference_mode():
        return subject.model(input_ids=ids, attention_mask=mask, use_cache=False).logits


def _perplexity(logits: Tensor, row: Sequence[int], start: int) -> float:
    known = torch.log_softmax(logits[start - 1 : len(row) - 1].float(), dim=-1)
    targets = torch.tensor(row[start:])
    return float(torch.exp(-known[torch.arange(len(targets)), targets].mean()))
