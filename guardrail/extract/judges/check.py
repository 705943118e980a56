"""Checks a judge on pairs of replies where it is obvious which one shows the trait, before long work.

A pair is won if both replies have a score and the one with the trait has the higher one. A judge that tosses
coins wins half of them, so as many must be won as chance wins in at most 5 % of all cases (a sign test).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from scipy.special import bdtrc

from guardrail.errors import UselessJudge
from guardrail.extract.judges.asking import COHERENCE_RUBRIC
from guardrail.extract.judges.cache import CachedJudge
from guardrail.extract.judges.opinions import Opinion, mean_mass, opinions
from guardrail.files.yaml import read_document
from guardrail.plugins.protocols import COHERENCE, Judge, JudgeRequest
from guardrail.traits import ReplyPair, TraitDefinition

FILE = Path(__file__).with_name("pairs.yaml")
LEVEL = 0.05


@runtime_checkable
class JudgeOfItsWorld(Judge, Protocol):
    """A judge that knows only certain questions, and therefore brings pairs of its own."""

    def pairs(self, metric: str) -> Sequence[ReplyPair]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeCheck:
    """How a judge did on one metric. `unscored` counts replies; `difference` is a mean over scored pairs."""

    metric: str
    pairs: int
    won: int
    needed: int
    unscored: int
    constant: float | None
    difference: float | None
    numeric_mass: float | None

    @property
    def useful(self) -> bool:
        """Whether the judge did better than chance."""
        return self.won >= self.needed

    @property
    def finding(self) -> str:
        """What to say about the judge."""
        what = f"{self.metric}: it rated the right reply higher in {self.won} of {self.pairs} pairs"
        if self.useful:
            return what
        if self.unscored == 2 * self.pairs:
            return f"{self.metric}: it gave no reply a score{self._mass}"
        if self.constant is not None:
            return f"{self.metric}: it gave every reply the same score, {self.constant:g}"
        missing = f"; {self.unscored} of {2 * self.pairs} replies got no score" if self.unscored else ""
        return f"{what}, and {self.needed} are needed{missing}{self._mass}"

    @property
    def _mass(self) -> str:
        mass = self.numeric_mass
        return "" if mass is None else f" (numbers had {mass:.1%} of the probability of its answers)"


@dataclass(frozen=True, slots=True)
class JudgeChecks:
    """All metrics that there are pairs for, and the seconds that one request took, if any was made."""

    judge: str
    checks: tuple[JudgeCheck, ...]
    seconds_each: float | None

    def require(self, metrics: Iterable[str]) -> None:
        """Raises UselessJudge if the judge is useless for one of these metrics."""
        wanted = set(metrics)
        if bad := [one.finding for one in self.checks if one.metric in wanted and not one.useful]:
            raise UselessJudge(f"the judge {self.judge} is useless for this: {'; '.join(bad)}")


def check_judge(judge: Judge, definitions: Sequence[TraitDefinition]) -> JudgeChecks:
    """Check a judge on these traits and on coherence. Traits without pairs are left out."""
    rubrics = {one.name: one.rubric_for("the character that speaks") for one in definitions} | {
        COHERENCE: COHERENCE_RUBRIC
    }
    own = {one.name: one.examples for one in definitions}
    begun, before = time.perf_counter(), _asked(judge)
    pairs = {name: found for name in rubrics if (found := own.get(name) or pairs_for(judge, name))}
    checks = tuple(_checked(judge, metric, rubrics[metric], found) for metric, found in pairs.items())
    seconds, asked = time.perf_counter() - begun, _asked(judge) - before
    if not isinstance(judge, CachedJudge):
        asked = 2 * sum(map(len, pairs.values()))
    return JudgeChecks(judge.name, checks, seconds / asked if asked else None)


def _asked(judge: Judge) -> int:
    """The requests that have gone past the cache."""
    return judge.asked if isinstance(judge, CachedJudge) else 0


def pairs_for(judge: Judge, metric: str) -> Sequence[ReplyPair]:
    """The built-in pairs of a trait or of coherence, or the judge's own; none for other traits."""
    return judge.pairs(metric) if isinstance(judge, JudgeOfItsWorld) else built_in().get(metric, ())


@cache
def built_in() -> Mapping[str, Sequence[ReplyPair]]:
    """The pairs of pairs.yaml by metric."""
    data = cast("Mapping[str, Sequence[Mapping[str, str]]]", read_document(FILE).data)
    return {name: [ReplyPair(**pair) for pair in rows] for name, rows in data.items()}


def needed(pairs: int) -> int:
    """The fewest wins that chance reaches in at most 5 % of all cases; all of them if there is no such."""
    return next((wins for wins in range(pairs) if bdtrc(wins - 1, pairs, 0.5) <= LEVEL), pairs)


def _checked(judge: Judge, metric: str, rubric: str, pairs: Sequence[ReplyPair]) -> JudgeCheck:
    asked = [
        JudgeRequest(metric=metric, rubric=rubric, question=pair.question, answer=answer)
        for pair in pairs
        for answer in (pair.positive, pair.negative)
    ]
    found = opinions(judge, asked)
    gaps = [
        gap for high, low in zip(found[::2], found[1::2], strict=True) if (gap := _gap(high, low)) is not None
    ]
    scores = [one.score for one in found if one.score is not None]
    return JudgeCheck(
        metric=metric,
        pairs=len(pairs),
        won=sum(gap > 0 for gap in gaps),
        needed=needed(len(pairs)),
        unscored=len(found) - len(scores),
        constant=scores[0] if len(set(scores)) == 1 else None,
        difference=sum(gaps) / len(gaps) if gaps else None,
        numeric_mass=mean_mass(one.mass for one in found),
    )


def _gap(high: Opinion, low: Opinion) -> float | None:
    return None if high.score is None or low.score is None else high.score - low.score
