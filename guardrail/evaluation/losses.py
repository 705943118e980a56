"""The loss of a model on replies that it did not write, such as those of held-out conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from guardrail.engines.transformers.batches import bucketed
from guardrail.engines.transformers.blocks import unwrapped
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Numbers

TOKENS = 2048
"""At a time: logits take memory for each token and each word of the vocabulary."""
Told: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The token ids of a prompt and of a reply to it."""


def reply_losses(subject: Subject, rows: Sequence[Told]) -> Numbers:
    """[n]: the mean of -log p over each reply's tokens, in nats."""
    found = np.zeros(len(rows))
    for batch in bucketed([len(prompt) + len(reply) for prompt, reply in rows], subject.rows, TOKENS):
        found[batch] = _losses(subject, [rows[i] for i in batch])
    return found


def _losses(subject: Subject, rows: Sequence[Told]) -> list[float]:
    ids, mask = subject.local.padded([[*prompt, *reply] for prompt, reply in rows], left=False)
    with torch.inference_mode():
        logits = unwrapped(subject.model)(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return [
            _mean_loss(logits[i, len(prompt) - 1 : len(prompt) + len(reply) - 1], reply)
            for i, (prompt, reply) in enumerate(rows)
        ]


def _mean_loss(logits: torch.Tensor, reply: Sequence[int]) -> float:
    wanted = torch.tensor(reply, device=logits.device)
    return float(torch.nn.functional.cross_entropy(logits.float(), wanted))
