"""Whether the projection of a prompt tells the replies to it, under eight graded system prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real.graded_prompts import GRADED
from benchmarks.real.judges import JUDGES
from benchmarks.real.persona_vectors import NEW_TOKENS, definition, said
from guardrail.extract.journal import Journal
from guardrail.extract.subject import Subject
from guardrail.statistics import correlation
from guardrail.statistics.intervals import Estimate, Numbers
from guardrail.types import Message
from guardrail.vectors.values import TraitVector

QUESTIONS, REPLIES = 10, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitored:
    """How the projection of a prompt goes with the score of the replies to it. None: nothing varies.

    label_alone: what the name of the graded prompt says by itself. replies_agree: the highest r there can be.
    by_condition: the mean projection and the mean score of each graded prompt.
    """

    prompts: int
    replies: int
    overall: Estimate | None
    within: Estimate | None
    label_alone: Estimate | None
    replies_agree: correlation.Reliability | None
    by_condition: Sequence[tuple[float, float]]


def monitored(subject: Subject, vector: TraitVector, layer: int, folder: Path) -> Monitored:
    """Every graded system prompt with QUESTIONS questions, REPLIES replies each."""
    asked = [
        (str(condition), (Message("system", text), Message("user", question)))
        for condition, text in enumerate(GRADED[vector.trait])
        for question in definition(vector.trait).evaluation[:QUESTIONS]
    ]
    prompts = [messages for _, messages in asked]
    scores = np.array(_scores(subject, vector.trait, prompts, folder))
    states = subject.prompt_states(prompts)[:, layer]
    projections = (states @ vector.probe[layer] + vector.offset[layer]).astype(np.float64)
    return _correlated([condition for condition, _ in asked], projections, scores)


def _correlated(conditions: Sequence[str], projections: Numbers, scores: Numbers) -> Monitored:
    expression = scores.mean(axis=1)
    both = np.stack([projections, expression], axis=1)
    return Monitored(
        prompts=len(conditions),
        replies=scores.shape[1],
        overall=correlation.overall(conditions, projections, expression),
        within=correlation.within(conditions, projections, expression),
        label_alone=correlation.label_alone(conditions, expression),
        replies_agree=correlation.reliability(conditions, scores.tolist()),
        by_condition=[tuple(part.mean(axis=0).tolist()) for part in correlation.parts(conditions, both)],
    )


def _scores(
    subject: Subject, trait: str, prompts: Sequence[Sequence[Message]], folder: Path
) -> list[list[float]]:
    """[prompts][REPLIES]: the score of each reply."""
    recipe = {"model": subject.fingerprint.weights, "trait": trait, "replies": REPLIES, "tokens": NEW_TOKENS}
    journal = Journal(folder / "graded.jsonl", recipe, len(prompts) * REPLIES, subject.rows)

    def rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
        messages = [prompts[i // REPLIES] for i in numbers]
        found = subject.replies(messages, seeds=numbers, max_new_tokens=NEW_TOKENS)
        return [{"text": one.text, "score": JUDGES[trait].score(trait, one.text)} for one in found]

    scores = [row["score"] for row in journal.complete(f"{trait}: graded prompts", rows, said)]
    return [scores[i : i + REPLIES] for i in range(0, len(scores), REPLIES)]
