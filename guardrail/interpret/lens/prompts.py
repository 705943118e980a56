"""Items as token ids: with their persona, without, and with the persona of another item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from guardrail.errors import ConfigError
from guardrail.extract.subject import Subject
from guardrail.interpret.forms import Form, Ids, chat_ids, text_ids
from guardrail.interpret.lens.tasks import Item

Condition: TypeAlias = Literal["with", "without", "other"]
"""`other`: the persona of another item, to tell what this persona does from what any sentence does."""
CONDITIONS: tuple[Condition, ...] = ("with", "without", "other")
SEED = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Items as one model can be asked them.

    golds: tokens that a right answer may begin with. several: items whose answer takes more than one token,
    of which only the first is looked at. rejected: why an item is left out.
    """

    items: list[Item]
    golds: list[frozenset[int]]
    rows: dict[Condition, list[Ids]]
    several: int
    rejected: dict[str, str]


def ask(subject: Subject, items: Sequence[Item], form: Form = "text") -> Asked:
    """Render items for a model; the paper has them as text.

    Raises ConfigError if none is left, with the first reason.
    """
    kept: list[Item] = []
    golds: list[frozenset[int]] = []
    rejected: dict[str, str] = {}
    for item in items:
        gold = first_tokens(subject, item.answers)
        if gold:
            kept.append(item)
            golds.append(gold)
        else:
            rejected[item.prompt] = f"no token of `{item.answers[0]}` stands for a word's beginning"
    if len(kept) < 2:
        raise ConfigError(
            f"fewer than two items can be asked: {next(iter(rejected.values()), 'one was given')}"
        )
    rows: dict[Condition, list[Ids]] = {
        condition: _rows(subject, kept, condition, form) for condition in CONDITIONS
    }
    several = sum(not any(_single(subject, answer) for answer in item.answers) for item in kept)
    return Asked(kept, golds, rows, several, rejected)


def first_tokens(subject: Subject, answers: Sequence[str]) -> frozenset[int]:
    """The first token of each answer, after a space and at the beginning of a text.

    A token of white space alone is left out: any answer could begin with it.
    """
    return frozenset(
        ids[0]
        for answer in answers
        for text in (f" {answer}", answer)
        if (ids := subject.local.renderer.encode(text)) and subject.tokenizer.decode(ids[:1]).strip()
    )


def _single(subject: Subject, answer: str) -> bool:
    return len(subject.local.renderer.encode(f" {answer}")) == 1


def _rows(subject: Subject, items: Sequence[Item], condition: Condition, form: Form) -> list[Ids]:
    personas = _personas(items, condition)
    made = [_row(subject, persona, item.prompt, form) for persona, item in zip(personas, items, strict=True)]
    if long := [len(ids) for ids in made if len(ids) > subject.longest]:
        raise ConfigError(f"a prompt has {max(long)} tokens; this model takes {subject.longest}")
    return made


def _personas(items: Sequence[Item], condition: Condition) -> list[str]:
    if condition == "without":
        return [""] * len(items)
    own = [item.persona for item in items]
    return own if condition == "with" else exchanged(own)


def exchanged(personas: Sequence[str]) -> list[str]:
    """Everybody's persona handed on in a random circle: each item gets that of another."""
    order = [int(i) for i in np.random.default_rng(SEED).permutation(len(personas))]
    given = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [str(personas[given[i]]) for i in range(len(personas))]


def _row(subject: Subject, persona: str, prompt: str, form: Form) -> Ids:
    if form == "text":
        return text_ids(subject, f"{persona} {prompt}".strip())
    return chat_ids(subject, persona, prompt)
