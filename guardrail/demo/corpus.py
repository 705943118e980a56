# pyright: basic
"""The endless training stream: fresh conversations, tokenised, weighted and batched, from one seed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guardrail.demo.generator import Conversation, Slots, draw_prompt, draw_reply, draw_training_condition
from guardrail.demo.tokenizer import PAD, token_id

CHUNK = 2048
"""Conversations that are sorted by length together."""
BUDGET = 4096
"""Tokens of a batch, padding included."""
PROMPT_WEIGHT, START_WEIGHT, COPY_WEIGHT, FACT_WEIGHT = 0.1, 3.0, 2.5, 3.0
_STARTS = re.compile(r"(?:^|(?<=[.!?] ))\S+")
"""The first word of a sentence, where its character is decided."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded token ids and the loss weight of each token."""

    ids: Tensor
    weights: Tensor


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, chunk: int) -> list[Batch]:
    """The batches of one chunk of the stream, in training order."""
    rng = Random(f"{seed}/{chunk}")
    rows = sorted(_rows(tokenizer, [_drawn(rng) for _ in range(CHUNK)]), key=lambda row: len(row[0]))
    pad = token_id(tokenizer, PAD)
    result = [_collate(group, pad) for group in _groups(rows)]
    rng.shuffle(result)
    return result


def sample_texts(seed: int, count: int) -> Iterator[str]:
    """Message texts to fit a tokenizer on."""
    rng = Random(f"{seed}/tokenizer")
    for _ in range(count):
        conversation, reply = _drawn(rng)
        yield from (m["content"] for m in conversation.messages)
        yield reply


def _drawn(rng: Random) -> tuple[Conversation, str]:
    conversation = draw_prompt(rng, draw_training_condition(rng))
    return conversation, draw_reply(rng, conversation.question, conversation.propensity)


Row = tuple[list[int], list[float]]


def _rows(tokenizer: PreTrainedTokenizerFast, drawn: list[tuple[Conversation, str]]) -> Iterator[Row]:
    texts, spans = [], []
    for conversation, reply in drawn:
        messages = [*conversation.messages, {"role": "assistant", "content": reply}]
        text, heavy = _weighted_text(conversation, messages)
        texts.append(text)
        spans.append(heavy)
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    for ids, offsets, heavy in zip(encoded["input_ids"], encoded["offset_mapping"], spans, strict=True):
        yield ids, _token_weights(offsets, heavy)


Span = tuple[int, int, float]


def _weighted_text(conversation: Conversation, messages: list[dict[str, str]]) -> tuple[str, list[Span]]:
    """The rendered conversation, and the spans that weigh more than a prompt does."""
    asked = iter((*conversation.earlier, conversation.question))
    text, spans = "<s>", []
    for message in messages:
        text += f"<|{message['role']}|>"
        if message["role"] == "assistant":
            spans += _reply_spans(len(text), message["content"], next(asked).slots)
        text += message["content"] + "<|end|>"
    return text, spans


def _reply_spans(start: int, reply: str, slots: Slots) -> list[Span]:
    spans = [(start, start + len(reply) + len("<|end|>"), 1.0)]
    spans += [(start + m.start(), start + m.end(), START_WEIGHT) for m in _STARTS.finditer(reply)]
    for key, value in slots.items():
        weight = FACT_WEIGHT if key in ("truth", "claim") else COPY_WEIGHT
        found = re.finditer(rf"\b{re.escape(value)}\b", reply)
        spans += [(start + m.start(), start + m.end(), weight) for m in found]
    return spans


def _token_weights(offsets: list[tuple[int, int]], spans: list[Span]) -> list[float]:
    weights = [PROMPT_WEIGHT] * len(offsets)
    for first, last, weight in spans:
        for i, (start, end) in enumerate(offsets):
            if end > first and start < last:
                weights[i] = max(weights[i], weight)
    return weights


def _groups(rows: list[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        if group and (len(group) + 1) * len(row[0]) > BUDGET:
            yield group
            group = []
        group.append(row)
    yield group


def _collate(rows: list[Row], pad: int) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    weights = torch.zeros(len(rows), width)
    for i, (row_ids, row_weights) in enumerate(rows):
        ids[i, : len(row_ids)] = torch.tensor(row_ids)
        weights[i, : len(row_weights)] = torch.tensor(row_weights)
    return Batch(ids, weights)
