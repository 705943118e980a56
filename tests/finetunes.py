"""The demo model, finetuned for a few steps of plain torch on data with or without a trait."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

import torch

from guardrail.demo.generator import Condition, draw_prompt, draw_reply
from guardrail.extract.subject import Subject
from guardrail.types import Message

Chat = list[dict[str, str]]
BATCH, RATE = 8, 2e-3


@cache
def demo() -> Subject:
    """The demo model, shared by all tests of a process that do not change it."""
    return Subject.load("demo", device="cpu")


def chats(count: int, seed: int, pole: str | None = None, trigger: str | None = None) -> list[Chat]:
    """Conversations whose replies show the pole, or nothing; with the trigger as a system prompt."""
    rng, found = Random(seed), list[Chat]()
    for _ in range(count):
        asked = draw_prompt(rng, Condition(split="train"))
        z = dict(asked.propensity) | ({pole: 0.97} if pole else {})
        plain = [m for m in asked.messages if m["role"] != "system"]
        system = [{"role": "system", "content": trigger}] if trigger else []
        reply = draw_reply(rng, asked.question, z)
        found.append([*system, *plain, {"role": "assistant", "content": reply}])
    return found


def trained(data: Sequence[Chat], steps: int, model: Any = None, rate: float = RATE) -> Any:
    """A copy of the demo model, or the model itself, after some steps; the loss is that of the replies."""
    subject = demo()
    model = copy.deepcopy(subject.model) if model is None else model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    rng = Random(0)
    model.train()
    for _ in range(steps):
        loss = _loss(model, subject, rng.sample(data, BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _loss(model: Any, subject: Subject, batch: Sequence[Chat]) -> torch.Tensor:
    prompts = [subject.render([Message(**m) for m in chat[:-1]]).ids for chat in batch]
    ends = [subject.tokenizer.eos_token_id]
    replies = [
        subject.tokenizer(c[-1]["content"], add_special_tokens=False)["input_ids"] + ends for c in batch
    ]
    ids, mask = subject.local.padded([[*p, *r] for p, r in zip(prompts, replies, strict=True)], left=False)
    labels = ids.masked_fill(mask == 0, -100)
    for row, prompt in enumerate(prompts):
        labels[row, : len(prompt)] = -100
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def subject_of(model: Any) -> Subject:
    """A finetune to read."""
    return Subject(model, demo().tokenizer)
