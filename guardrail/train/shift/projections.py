"""Projections of states at the last prompt token on the unit vectors of all traits, at every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from guardrail.errors import ModelError, PromptError
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Numbers
from guardrail.types import Message
from guardrail.vectors.values import TraitVectors, unit

CHUNK = 256
"""Prompts whose states are in memory at once."""
Conversations: TypeAlias = Sequence[Sequence[Message]]
Rows: TypeAlias = Sequence[Sequence[int]]
Project: TypeAlias = Callable[[Subject, str, Rows, Numbers], Numbers]
"""As `projected`."""


def unit_vectors(vectors: TraitVectors) -> Numbers:
    """[L + 1, traits, d_model] float64, in the order of the file."""
    return np.stack([unit(one.steering) for one in vectors.values()], axis=1).astype(np.float64)


def encoded(subject: Subject, trait: str, prompts: Conversations) -> Rows:
    """The tokens of each prompt. Raises PromptError for one that the model cannot read."""
    rows = [subject.render(messages).ids for messages in prompts]
    for number, ids in enumerate(rows, 1):
        if len(ids) > subject.longest:
            raise PromptError(
                f"{trait}: prompt {number} has {len(ids)} tokens, and the model reads {subject.longest}"
            )
    return rows


def projected(subject: Subject, name: str, rows: Rows, units: Numbers) -> Numbers:
    """[n, L + 1, traits] float64. Raises ModelError if the states of the model `name` are not finite."""
    parts = [_projected(subject, name, rows[i : i + CHUNK], units) for i in range(0, len(rows), CHUNK)]
    return np.concatenate(parts)


def _projected(subject: Subject, name: str, rows: Rows, units: Numbers) -> Numbers:
    states = subject.means(rows, [[(len(ids) - 1, len(ids))] for ids in rows])[:, 0]
    if not np.isfinite(states).all():
        raise ModelError(f"the states of {name} are not finite on these prompts")
    return np.einsum("nld,lkd->nlk", states.astype(np.float64), units)
