"""What the judge's scores say about one trait, and whether a vector may be made from the kept pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from guardrail.errors import ExtractionError, NotInduced, TooFewPairs
from guardrail.extract.induction import told_apart
from guardrail.vectors.provenance import Induction

MINIMUM = 20
"""The fewest kept pairs that a vector is made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The judge's scores on both sides, and why pairs were dropped (the first reason that applies).

    Means are over judged replies, None if there are none. `raised` is the share of positive replies that
    score at least 50, `baseline` the mean score without a system prompt. `constant`: the only score that the
    judge gave. `numeric_mass`: the mean probability of numbers among its answers, if it gives probabilities.
    """

    trait: str
    judge: str
    pairs: int
    kept: int
    dropped: Mapping[str, int]
    positive_mean: float | None
    negative_mean: float | None
    baseline: float | None
    raised: float
    induction: Induction
    constant: float | None = None
    numeric_mass: float | None = None


def check_induced(evidence: Evidence, minimum: int = MINIMUM) -> None:
    """Raises NotInduced or TooFewPairs if no vector may be made from the kept pairs."""
    if (error := refused(evidence, minimum)) is not None:
        raise error


def refused(evidence: Evidence, minimum: int) -> ExtractionError | None:
    """Why there is nothing to extract, if so."""
    if not told_apart(evidence.induction):
        return NotInduced(
            f"{evidence.trait} cannot be induced in this model, or the judge {evidence.judge} does not tell "
            f"its replies apart: {'; '.join(_against(evidence))} ({_means(evidence)})"
        )
    if evidence.kept >= minimum:
        return None
    what = f"{evidence.kept} of {evidence.pairs} pairs were kept and {minimum} are needed"
    why = ", ".join(f"{count} {reason}" for reason, count in evidence.dropped.items())
    if evidence.raised * evidence.pairs < minimum:
        return NotInduced(
            f"{evidence.trait} cannot be induced in this model: {what} ({_means(evidence)}; {why})"
        )
    return TooFewPairs(f"{evidence.trait}: {what} ({why}); more samples may help")


def _against(evidence: Evidence) -> Iterator[str]:
    """What speaks against the trait, or against the judge."""
    found = evidence.induction
    if evidence.constant is not None:
        yield f"every reply was given the same score, {evidence.constant:g}"
        return
    if unjudged := evidence.dropped.get("not judged", 0):
        yield f"{unjudged} of {evidence.pairs} pairs were not judged{_mass(evidence.numeric_mass)}"
    if found.difference is None:
        yield "fewer than two questions have judged replies on both sides"
    elif found.difference.low <= 0:
        one = found.difference
        yield (
            f"replies that were asked for it score {one.value:.1f} points higher than the others, "
            f"95 % interval {one.low:.1f} to {one.high:.1f}"
        )
    yield (
        f"{evidence.kept} of {evidence.pairs} pairs were kept, and chance keeps {found.chance:.0f}, "
        f"at most {found.chance_high:.0f}"
    )


def _mass(mass: float | None) -> str:
    return "" if mass is None else f" (numbers had {mass:.1%} of the probability, and 25 % are needed)"


def _means(evidence: Evidence) -> str:
    asked, against, plain = map(_number, (evidence.positive_mean, evidence.negative_mean, evidence.baseline))
    return f"mean score {asked} when asked for it, {against} when asked against it, {plain} when not asked"


def described(evidence: Evidence, minimum: int) -> dict[str, object]:
    """As JSON, with the verdict."""
    error = refused(evidence, minimum)
    return {"verdict": str(error or "induced"), **asdict(evidence), "dropped": dict(evidence.dropped)}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
