"""The loss of a model on replies that it did not write, such as those of held-out conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch

from guardrail.engines.transformers.activations import Change, Site
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Numbers

TOKENS = 2048
"""At a time: logits take memory for each token and each word of the vocabulary."""
Told: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The token ids of a prompt and of a reply to it."""


def reply_losses(
    subject: Subject, rows: Sequence[Told], changes: Mapping[Site, Change] = MappingProxyType({})
) -> Numbers:
    """[n]: the mean of -log p over each reply's tokens, in nats. `changes`: to activations, meanwhile."""
    found = np.zeros(len(rows))
    for batch in subject.batches([len(prompt) + len(reply) for prompt, reply in rows], TOKENS):
        found[batch] = _losses(subject, [rows[i] for i in batch], changes)
    return found


def _losses(subject: Subject, rows: Sequence[Told], changes: Mapping[Site, Change]) -> list[float]:
    ids, mask = subject.local.padded([[*prompt, *reply] for prompt, reply in rows], left=False)
    logits = subject.activations.run(ids, mask, changes)
    return [
        _mean_loss(logits[i, len(prompt) - 1 : len(prompt) + len(reply) - 1], reply)
        for i, (prompt, reply) in enumerate(rows)
    ]


def _mean_loss(logits: torch.Tensor, reply: Sequence[int]) -> float:
    wanted = torch.tensor(reply, device=logits.device)
    return float(torch.nn.functional.cross_entropy(logits.float(), wanted))
