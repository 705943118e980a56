"""Selects the pairs of rollouts to keep: one paired mask, as in the official code (arXiv 2507.21509, 2.2).

A pair is the same instruction, question and sample on both sides. It is kept if the positive reply scores at
least 50 on the trait, the negative one less than 100 - 50, and both at least 50 on coherence. A refused score
or an empty reply drops its pair, so both sides always have equal counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from guardrail.extract.evidence import Evidence
from guardrail.extract.induction import PairScores, induction
from guardrail.extract.judgements import Judged
from guardrail.plugins.protocols import COHERENCE

THRESHOLD = 50.0
Scores = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Two rows of the rollouts that answer the same question; `question` is their cluster."""

    positive: int
    negative: int
    question: int


def reason_to_drop(trait: str, positive: Scores, negative: Scores) -> str | None:
    """Why a pair is dropped, or None if it is kept."""
    scores = (positive[trait], negative[trait], positive[COHERENCE], negative[COHERENCE])
    with_trait, without, coherence, other_coherence = scores
    if with_trait is None or without is None or coherence is None or other_coherence is None:
        return "not judged"
    if with_trait < THRESHOLD:
        return "positive reply without the trait"
    if without >= 100 - THRESHOLD:
        return "negative reply with the trait"
    return "incoherent" if min(coherence, other_coherence) < THRESHOLD else None


def kept_pairs(judged: Judged, trait: str) -> tuple[list[Pair], Evidence]:
    """The kept pairs in the order of the rollouts, and the evidence."""
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    table = _Table()
    for pair in _pairs(judged):
        positive, negative = judged.scores(pair.positive), judged.scores(pair.negative)
        table.add(pair.question, trait, positive, negative)
        reason = reason_to_drop(trait, positive, negative)
        if reason is None:
            kept.append(pair)
        else:
            dropped[reason] += 1
    return sorted(kept), _evidence(judged, trait, len(kept), dropped, table.scores())


@dataclass(slots=True)
class _Table:
    """Collects the scores of pairs."""

    question: list[int] = field(default_factory=list[int])
    trait: list[tuple[float | None, float | None]] = field(default_factory=list)
    coherence: list[tuple[float | None, float | None]] = field(default_factory=list)

    def add(self, question: int, trait: str, positive: Scores, negative: Scores) -> None:
        self.question.append(question)
        self.trait.append((positive[trait], negative[trait]))
        self.coherence.append((positive[COHERENCE], negative[COHERENCE]))

    def scores(self) -> PairScores:
        trait, coherence = (
            np.array(part, np.float64).reshape(-1, 2) for part in (self.trait, self.coherence)
        )
        with np.errstate(invalid="ignore"):
            coherent = coherence >= THRESHOLD
            able = np.stack([coherent & (trait >= THRESHOLD), coherent & (trait < 100 - THRESHOLD)], axis=2)
        return PairScores(question=np.array(self.question, np.intp), scores=trait, able=able)


def _pairs(judged: Judged) -> Iterator[Pair]:
    rollouts = judged.rollouts
    places = {(p.kind, p.instruction, p.question): i for i, p in enumerate(rollouts.prompts)}
    for (kind, instruction, question), i in places.items():
        if kind == "positive":
            j, cluster = places["negative", instruction, question], rollouts.prompts[i].cluster
            for sample in range(rollouts.samples):
                yield Pair(rollouts.row(i, sample), rollouts.row(j, sample), cluster)


def _evidence(
    judged: Judged, trait: str, kept: int, dropped: Mapping[str, int], scores: PairScores
) -> Evidence:
    sums: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    raised = 0
    for row in range(len(judged.rollouts)):
        kind = judged.rollouts.prompts[judged.rollouts.place(row)[0]].kind
        score = judged.scores(row)[trait]
        if score is not None:
            sums[kind] += score
            counts[kind] += 1
            raised += kind == "positive" and score >= THRESHOLD
    pairs = kept + sum(dropped.values())
    means = {k: sums[k] / counts[k] if counts[k] else None for k in ("positive", "negative", "neutral")}
    return Evidence(
        trait=trait,
        judge=judged.journal.recipe["judge"],
        pairs=pairs,
        kept=kept,
        dropped=dict(dropped),
        positive_mean=means["positive"],
        negative_mean=means["negative"],
        baseline=means["neutral"],
        raised=raised / pairs if pairs else 0.0,
        induction=induction(scores),
        constant=scores.constant,
        numeric_mass=judged.numeric_mass(trait),
    )
