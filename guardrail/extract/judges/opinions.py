"""Asks a judge and checks what it answers. Some judges also say how much probability they gave to numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from guardrail.errors import JudgeError
from guardrail.plugins.protocols import Judge, JudgeRequest


@dataclass(frozen=True, slots=True)
class Opinion:
    """A score, None if the judge refused. `mass`: the probability of all numbers, None if it is unknown."""

    score: float | None
    mass: float | None = None


@runtime_checkable
class WeighingJudge(Judge, Protocol):
    """A judge whose scores come from the probabilities of numbers, and which tells their mass."""

    def opinions(self, requests: Sequence[JudgeRequest]) -> Sequence[Opinion]: ...


def opinions(judge: Judge, requests: Sequence[JudgeRequest]) -> Sequence[Opinion]:
    """The judge's opinions, in the order of the requests. Raises JudgeError if they make no sense."""
    if not requests:
        return ()
    if isinstance(judge, WeighingJudge):
        found = judge.opinions(requests)
    else:
        found = [Opinion(score) for score in judge.scores(requests)]
    if len(found) != len(requests):
        raise JudgeError(f"judge `{judge.name}` gave {len(found)} scores for {len(requests)} requests")
    if bad := [one.score for one in found if one.score is not None and not 0 <= one.score <= 100]:
        raise JudgeError(f"judge `{judge.name}` gave a score of {bad[0]}; scores are 0 to 100 or None")
    return found


def mean_mass(found: Iterable[float | None]) -> float | None:
    """The mean of the masses that are known, None if none is."""
    known = [mass for mass in found if mass is not None]
    return sum(known) / len(known) if known else None
