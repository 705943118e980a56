"""Selects the pairs of rollouts to keep: one paired mask, as in the official code (arXiv 2507.21509, 2.2).

A pair is the same instruction, question and sample on both sides. It is kept if the positive reply scores at
least 50 on the trait, the negative one less than 100 - 50, and both at least 50 on coherence. A refused score
or an empty reply drops its pair, so both sides always have equal counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from guardrail.errors import NotInduced, TooFewPairs
from guardrail.extract.judgements import Judged
from guardrail.plugins.protocols import COHERENCE

THRESHOLD = 50.0
MINIMUM = 20
Scores = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Two rows of the rollouts that answer the same question, and that question."""

    positive: int
    negative: int
    question: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The judge's scores on both sides, and why pairs were dropped (the first reason that applies).

    Means are over judged replies, None if there are none. `raised` is the share of positive replies that
    score at least 50, `baseline` the mean score without a system prompt.
    """

    trait: str
    pairs: int
    kept: int
    dropped: Mapping[str, int]
    positive_mean: float | None
    negative_mean: float | None
    baseline: float | None
    raised: float


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
    for pair in _pairs(judged):
        reason = reason_to_drop(trait, judged.scores(pair.positive), judged.scores(pair.negative))
        if reason is None:
            kept.append(pair)
        else:
            dropped[reason] += 1
    return sorted(kept), _evidence(judged, trait, len(kept), dropped)


def check_enough(evidence: Evidence, minimum: int = MINIMUM) -> None:
    """Raises NotInduced or TooFewPairs below `minimum` kept pairs."""
    if evidence.kept >= minimum:
        return
    what = f"{evidence.kept} of {evidence.pairs} pairs were kept and {minimum} are needed"
    why = ", ".join(f"{count} {reason}" for reason, count in evidence.dropped.items())
    asked, plain = _number(evidence.positive_mean), _number(evidence.baseline)
    means = f"mean score {asked} when asked for it, {plain} without a system prompt"
    if evidence.raised * evidence.pairs < minimum:
        raise NotInduced(f"{evidence.trait} cannot be induced in this model: {what} ({means}; {why})")
    raise TooFewPairs(f"{evidence.trait}: {what} ({why}); more samples may help")


def described(evidence: Evidence) -> dict[str, object]:
    """As JSON."""
    return {**asdict(evidence), "dropped": dict(evidence.dropped)}


def _pairs(judged: Judged) -> Iterator[Pair]:
    rollouts = judged.rollouts
    places = {(p.kind, p.instruction, p.question): i for i, p in enumerate(rollouts.prompts)}
    for (kind, instruction, question), i in places.items():
        if kind == "positive":
            j = places["negative", instruction, question]
            for sample in range(rollouts.samples):
                yield Pair(rollouts.row(i, sample), rollouts.row(j, sample), question)


def _evidence(judged: Judged, trait: str, kept: int, dropped: Mapping[str, int]) -> Evidence:
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
        pairs=pairs,
        kept=kept,
        dropped=dict(dropped),
        positive_mean=means["positive"],
        negative_mean=means["negative"],
        baseline=means["neutral"],
        raised=raised / pairs if pairs else 0.0,
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
