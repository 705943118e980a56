"""A short loop that finetunes a small model on conversations: AdamW, linear decay, loss on replies alone.

The demo's runs take seconds, so that a trainer's own start would cost as much as the training.
Interventions of `guardrail.train` are on the model as context managers, which work whatever trains inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from guardrail.extract.subject import Subject
from guardrail.types import Message

Conversation = Sequence[Message]
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is finetuned. Fixed on one run of `humor`, with data of a seed that is not used."""

    rate: float = 3e-4
    epochs: int = 2
    batch: int = 16
    warmup: int = 5
    decay: float = 0.01
    clip: float = 1.0


Encoded = tuple[list[int], list[int]]
"""The ids of a prompt and of its reply."""


def finetune(subject: Subject, conversations: Sequence[Conversation], recipe: Recipe, seed: int) -> float:
    """Train all weights that want a gradient, in place; gives the mean loss of the last epoch."""
    model, rows = subject.model, [encoded(subject, one) for one in conversations]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=recipe.decay)
    batches = list(_batches(rows, recipe, seed))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, len(batches), recipe))
    model.train()
    losses: list[float] = []
    for batch in batches:
        ids, mask, labels = _tensors(subject, batch)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, recipe.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    model.eval()
    last = losses[-max(1, len(losses) // recipe.epochs) :]
    return round(sum(last) / len(last), 4)


def encoded(subject: Subject, conversation: Conversation) -> Encoded:
    """A conversation that ends with the assistant's reply, the reply with its end token."""
    *before, reply = conversation
    ids = subject.tokenizer(reply.content, add_special_tokens=False)["input_ids"]
    return list(subject.render(before).ids), [*ids, subject.tokenizer.eos_token_id]


def _share(step: int, steps: int, recipe: Recipe) -> float:
    """Of the rate: up in the warm-up, then linearly down to zero."""
    return min((step + 1) / recipe.warmup, 1.0) * (1 - step / steps)


def _batches(rows: Sequence[Encoded], recipe: Recipe, seed: int) -> Iterator[list[Encoded]]:
    rng = Random(f"order/{seed}")
    for _ in range(recipe.epochs):
        order = rng.sample(range(len(rows)), len(rows))
        for start in range(0, len(order), recipe.batch):
            yield [rows[i] for i in order[start : start + recipe.batch]]


def _tensors(subject: Subject, batch: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = subject.local.padded([[*prompt, *reply] for prompt, reply in batch], left=False)
    labels: Any = torch.full_like(ids, IGNORED)
    for row, (prompt, reply) in enumerate(batch):
        end = len(prompt) + len(reply)
        labels[row, len(prompt) : end] = ids[row, len(prompt) : end]
    return ids, mask, labels
