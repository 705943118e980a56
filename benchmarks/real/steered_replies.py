"""A persona's vector added and capped: how the replies score, and whether they still make sense."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real.coherence import fluency
from benchmarks.real.judges import JUDGES
from benchmarks.real.mixed_steering import MixedSubject
from benchmarks.real.persona_vectors import NEW_TOKENS, said
from guardrail.extract.journal import Journal
from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.extract.layers.sweep import Questions
from guardrail.extract.prompts import RolloutPrompt
from guardrail.statistics.intervals import Estimate, mean, rate
from guardrail.traits import load_definition
from guardrail.types import Array, Steering
from guardrail.vectors.values import TraitVector, unit

QUESTIONS, FEWER = 12, 8
"""Evaluation questions for each layer, and for each way of steering: its ways fill one batch."""
LAYERS = range(8, 24, 2)
COEFFICIENTS = (-2.0, -1.0, 1.0, 2.0)
PERCENTILES = (50, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of steering. amount: a coefficient of the vector, or the percentile of a cap.

    prompts: `plain` questions, or `asking` for the trait.
    """

    operator: str
    amount: float | None
    prompts: str
    steering: Steering | None = None
    layer: int | None = None

    def __str__(self) -> str:
        return f"{self.operator} {self.amount} at {self.layer}, {self.prompts}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """The replies under one way. perplexity: the median, under the unsteered model."""

    operator: str
    amount: float | None
    prompts: str
    layer: int | None
    n: int
    trait: Estimate
    coherent: Estimate
    perplexity: float
    distinct: float


def adding(vector: TraitVector, layer: int, coefficient: float) -> Way:
    """A multiple of the vector added to plain questions."""
    direction = (coefficient * vector.steering[layer]).astype(np.float32)
    steering = Steering(
        policy="", trait=vector.trait, operator="add", layers=(layer,), directions=(direction,)
    )
    return _way("add", coefficient, "plain", layer, steering)


def capping(vector: TraitVector, layer: int, percentile: float, states: Array) -> Way:
    """The projection limited to a percentile of that of `states`, where prompts ask for the trait."""
    direction = unit(vector.steering[layer])
    limit = float(np.percentile(states @ direction, percentile))
    steering = Steering(
        policy="",
        trait=vector.trait,
        operator="cap",
        layers=(layer,),
        directions=(direction,),
        limits=(limit,),
    )
    return _way("cap", percentile, "asking", layer, steering)


def _way(operator: str, amount: float, prompts: str, layer: int, steering: Steering) -> Way:
    way = Way(operator=operator, amount=amount, prompts=prompts, layer=layer)
    return replace(way, steering=steering.renamed(str(way)))


def sweep(subject: MixedSubject, vector: TraitVector, folder: Path) -> Sweep:
    """The vector of each of LAYERS added once, for the rule that chooses by steering."""
    ways = [Way(operator="none", amount=None, prompts="plain")]
    ways += [adding(vector, layer, 1.0) for layer in LAYERS]
    found = spoken(subject, vector.trait, ways, QUESTIONS, folder / "layers.jsonl")
    candidates = [
        Candidate(layer=one.layer or 0, trait=one.trait.value, coherence=100 * one.coherent.value)
        for one in found
    ]
    return Sweep(
        trait=vector.trait,
        layers=vector.layers,
        candidates=tuple(candidates[1:]),
        baseline=candidates[0],
        judge=JUDGES[vector.trait].name,
        replies=QUESTIONS,
    )


def curve(
    subject: MixedSubject, vector: TraitVector, layer: int, states: Array, folder: Path
) -> list[Steered]:
    """Multiples of the vector for plain questions, and caps where the trait is asked for."""
    ways = [Way(operator="none", amount=None, prompts=prompts) for prompts in ("plain", "asking")]
    ways += [adding(vector, layer, coefficient) for coefficient in COEFFICIENTS]
    ways += [capping(vector, layer, percentile, states) for percentile in PERCENTILES]
    return spoken(subject, vector.trait, ways, FEWER, folder / "curve.jsonl")


def spoken(
    subject: MixedSubject, trait: str, ways: Sequence[Way], questions: int, file: Path
) -> list[Steered]:
    """Replies to the first evaluation questions under every way; a batch holds several ways."""
    asked = Questions.of(load_definition(trait))
    prompts = {"plain": asked.plain[:questions], "asking": asked.asking[:questions]}
    rows = [(way, i, prompt) for way in ways for i, prompt in enumerate(prompts[way.prompts])]
    journal = Journal(file, _recipe(subject, trait, ways, questions), len(rows), subject.rows)

    def written(numbers: Sequence[int]) -> list[dict[str, Any]]:
        return _written(subject, trait, [rows[i] for i in numbers])

    found = list(journal.complete(f"{trait}: {file.stem}", written, said))
    return [
        _summed(way, found[i : i + questions])
        for way, i in zip(ways, range(0, len(rows), questions), strict=True)
    ]


def _recipe(subject: MixedSubject, trait: str, ways: Sequence[Way], questions: int) -> dict[str, object]:
    digest = hashlib.sha256()
    for steering in (way.steering for way in ways if way.steering):
        digest.update(steering.direction(0).tobytes() + str(steering.limits).encode())
    return {
        "model": subject.fingerprint.weights,
        "trait": trait,
        "ways": [str(way) for way in ways],
        "steering": digest.hexdigest(),
        "questions": questions,
        "tokens": NEW_TOKENS,
    }


def _written(
    subject: MixedSubject, trait: str, rows: Sequence[tuple[Way, int, RolloutPrompt]]
) -> list[dict[str, Any]]:
    replies = subject.mixed_replies(
        [prompt.messages for _, _, prompt in rows],
        [(way.steering,) if way.steering else () for way, _, _ in rows],
        [seed for _, seed, _ in rows],
        NEW_TOKENS,
    )
    texts = [reply.text for reply in replies]
    fluent = fluency(subject, [prompt.messages[-1:] for _, _, prompt in rows], texts)
    return [
        {
            "text": text,
            "score": JUDGES[trait].score(trait, text),
            "perplexity": one.perplexity,
            "distinct": one.distinct,
            "coherent": one.coherent,
        }
        for text, one in zip(texts, fluent, strict=True)
    ]


def _summed(way: Way, rows: Sequence[Mapping[str, Any]]) -> Steered:
    return Steered(
        operator=way.operator,
        amount=way.amount,
        prompts=way.prompts,
        layer=way.layer,
        n=len(rows),
        trait=mean([row["score"] for row in rows]),
        coherent=rate([row["coherent"] for row in rows]),
        perplexity=float(np.median([row["perplexity"] for row in rows])),
        distinct=float(np.mean([row["distinct"] for row in rows])),
    )
