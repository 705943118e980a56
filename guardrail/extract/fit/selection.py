"""Chooses what a probe reads and how it is fitted, on prompts that were held out of the fit.

Three stages, each with fewer places and more ways: every layer and position with one method; the best place
of each position with every method and penalty, normalised or not; sums, to which the best place is added
one at a time. Recall at a low rate is noisy, so the choice is not simply the best: of the candidates within
one standard error of it, those with the highest AUROC; of these, the one that reads the fewest places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from guardrail.extract.fit.folds import Check, Stratum
from guardrail.extract.fit.readout import Candidate, Task, fit_readout
from guardrail.extract.fit.validation import CRITERION, HeldOut, Results, shortfalls
from guardrail.extract.journal import Report, silent
from guardrail.plugins.protocols import LabelledMethod
from guardrail.types import Array, Place, Position

SCREENING = "lda"
"""The method of the first stage if it is among those to try: fast, and close to the others."""
SETTINGS = 2
"""How many ways to fit are tried on sums."""
APART = 6
"""Two layers of a sum are at least the number of layers divided by this apart, or they say the same."""
NEAR = 0.1
"""Candidates that fall short of the best by more are not within a standard error of it."""
CLOSE = 0.005
"""AUROCs that differ by less count as the same."""
States = Mapping[Place, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is tried. `most_places` bounds sums; 1 tries none."""

    layers: tuple[int, ...]
    positions: tuple[Position, ...]
    methods: tuple[LabelledMethod, ...]
    most_places: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A candidate with the scores of the prompts that were held out."""

    candidate: Candidate
    tested: Results = field(repr=False)
    rank: tuple[float, float]
    """The criterion, and the distance for candidates that find everything."""

    @classmethod
    def of(cls, candidate: Candidate, tested: Results) -> Tried:
        """Ranked."""
        return cls(candidate=candidate, tested=tested, rank=(tested.value, tested.distance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen candidate among all that were tried, best first, and why."""

    chosen: Tried
    tried: tuple[Tried, ...]
    errors: tuple[float | None, ...]
    """The standard error of each one's distance to the best; None for those far behind."""
    reason: str


def choose(
    task: Task,
    states: States,
    checks: Sequence[Check],
    strata: Sequence[Stratum],
    search: Search,
    report: Report = silent,
) -> Choice:
    """Try the candidates, and choose. `strata`: those of the prompts that are scored."""
    methods = {method.name: method for method in search.methods}

    def tried(stage: str, candidates: Sequence[Candidate]) -> list[Tried]:
        found: list[Tried] = []
        for one in candidates:
            scores = held_out_scores(task, states, checks, one, methods[one.method])
            tested = Results(tuple(HeldOut.of(row, strata) for row in scores))
            found.append(Tried.of(one, tested))
            report(f"{task.trait}: {stage}", len(found), len(candidates))
        return found

    screened = tried("layers and positions", _screening(search))
    refined = tried("ways to fit", _refining(screened, search))
    found = [*screened, *refined]
    places, ways = _best_places(screened, 2), _ways(found)
    for count in range(2, min(search.most_places, len(places)) + 1):
        best = max((t for t in found if len(t.candidate.places) == count - 1), key=lambda t: t.rank)
        found += tried(f"sums of {count}", _sums(best, places, ways))
    report(f"{task.trait}: comparing the candidates", 0, len(found))
    return taken(found)


def held_out_scores(
    task: Task, states: States, checks: Sequence[Check], candidate: Candidate, method: LabelledMethod
) -> NDArray[np.float64]:
    """[checks, n]: each row's score by the fit that it was held out of; NaN for rows that never were."""
    own = {place: states[place] for place in candidate.places}
    scores = np.full((len(checks), len(task.labels)), np.nan)
    for row, check in zip(scores, checks, strict=True):
        for fold in check.folds:
            fitted = fit_readout(own, candidate, method, task, fold.train)
            row[fold.test] = fitted.scores({place: there[fold.test] for place, there in own.items()})
    return scores


def _screening(search: Search) -> list[Candidate]:
    """The first stage: every place, with one method."""
    method = next((m for m in search.methods if m.name == SCREENING), search.methods[0])
    penalty = method.penalties[len(method.penalties) // 2] if method.penalties else None
    return [
        Candidate(places=((layer, position),), normalised=False, method=method.name, penalty=penalty)
        for position in search.positions
        for layer in search.layers
    ]


def _refining(screened: Sequence[Tried], search: Search) -> list[Candidate]:
    """Every way to fit at the best place of each position, but those that were tried."""
    done = {one.candidate for one in screened}
    found = [
        Candidate(places=(place,), normalised=normalised, method=method.name, penalty=penalty)
        for place in _best_places(screened, 1)
        for normalised in (False, True)
        for method in search.methods
        for penalty in method.penalties or (None,)
    ]
    return [one for one in found if one not in done]


def _best_places(tried: Sequence[Tried], each: int) -> list[Place]:
    """The best places of every position, `each` of them, apart from one another; the best position first."""
    found: dict[Position, list[Place]] = {}
    depth = max(one.candidate.places[0][0] for one in tried)
    for one in sorted(tried, key=lambda t: t.rank, reverse=True):
        ((layer, position),) = one.candidate.places
        own = found.setdefault(position, [])
        if len(own) < each and all(abs(layer - other) * APART >= depth for other, _ in own):
            own.append((layer, position))
    return [place for places in found.values() for place in places]


def _ways(tried: Sequence[Tried]) -> list[Candidate]:
    """The best candidates, each with another method or normalisation."""
    found: dict[tuple[str, bool], Candidate] = {}
    for one in sorted(tried, key=lambda t: t.rank, reverse=True):
        found.setdefault((one.candidate.method, one.candidate.normalised), one.candidate)
    return list(found.values())[:SETTINGS]


def _sums(best: Tried, places: Sequence[Place], ways: Sequence[Candidate]) -> list[Candidate]:
    """The places of the best candidate and one more."""
    return [
        replace(way, places=tuple(sorted((*best.candidate.places, place))))
        for place in places
        if place not in best.candidate.places
        for way in ways
    ]


def taken(tried: Sequence[Tried]) -> Choice:
    """The candidate that is taken, by the rule above."""
    ordered = sorted(tried, key=lambda t: t.rank, reverse=True)
    best = ordered[0]
    near = [t for t in ordered if t.rank[0] >= best.rank[0] - NEAR]
    gaps = shortfalls(best.tested, [t.tested for t in near])
    good = [t for t, (gap, error) in zip(near, gaps, strict=True) if gap <= error + 1e-12]
    enough = max(t.tested.area for t in good) - CLOSE
    chosen = min((t for t in good if t.tested.area >= enough), key=lambda t: len(t.candidate.places))
    errors = [error for _, error in gaps] + [None] * (len(ordered) - len(near))
    reason = _reason(chosen, best, len(ordered), len(good))
    return Choice(chosen=chosen, tried=tuple(ordered), errors=tuple(errors), reason=reason)


def _reason(chosen: Tried, best: Tried, count: int, good: int) -> str:
    what = f"{CRITERION}: {chosen.rank[0]:.3f}"
    if chosen is best:
        return f"the best of {count} candidates by {what}"
    return (
        f"of {count} candidates, {good} are within one standard error of the best ({best.rank[0]:.3f}, "
        f"{best.candidate.label}); of those whose AUROC is within {CLOSE} of the highest, this one reads the "
        f"fewest places. By {what}"
    )
