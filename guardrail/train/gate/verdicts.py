"""Whether a limit holds. Decided by intervals, so that luck neither passes nor fails a model.

A limit holds if the whole 95 % interval of the change is within it. It is exceeded if the whole interval is
beyond it; in between the result is inconclusive, and more questions or samples would decide. Only what holds
passes the gate: neither `inconclusive` nor `not measured` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from guardrail.statistics.intervals import TAIL, Estimate, clustered_mean, numbers
from guardrail.train.gate.policy import Change

Outcome: TypeAlias = Literal["passed", "failed", "inconclusive", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One limit under one condition. `found`: the change against the base; None if it was not measured.

    `bound`: the change that is just allowed, negative for a fall; None where no number is limited.
    """

    what: str
    condition: str
    limit: str
    found: Estimate | None
    outcome: Outcome
    why: str = ""
    bound: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the limit was shown to hold."""
        return self.outcome == "passed"

    @property
    def of_limit(self) -> Estimate | None:
        """The change as a share of what is allowed: above 1 it is too much, below 0 it went the other way."""
        if self.found is None or not self.bound:
            return None
        value, *ends = (one / self.bound for one in (self.found.value, self.found.low, self.found.high))
        return Estimate(value, min(ends), max(ends))


def verdicts(
    what: str, condition: str, change: Change, found: Estimate | None, unit: str, why: str = ""
) -> Iterator[Verdict]:
    """A verdict on each side that is limited."""
    if change.max_rise is not None:
        limit = f"at most {change.max_rise:g} {unit} up"
        yield _verdict(what, condition, limit, change.max_rise, found, why)
    if change.max_fall is not None:
        limit = f"at most {change.max_fall:g} {unit} down"
        yield _verdict(what, condition, limit, -change.max_fall, found, why)


def at_most(what: str, condition: str, limit: float, found: Estimate | None, why: str = "") -> Verdict:
    """A verdict on a share that has a limit of its own."""
    return _verdict(what, condition, f"at most {limit:g} of 1", limit, found, why)


def _verdict(
    what: str, condition: str, limit: str, bound: float, found: Estimate | None, why: str
) -> Verdict:
    return Verdict(
        what=what,
        condition=condition,
        limit=limit,
        found=found,
        outcome=_outcome(bound, found),
        why=why,
        bound=bound,
    )


def _outcome(bound: float, found: Estimate | None) -> Outcome:
    if found is None:
        return "not measured"
    low, high = (found.low, found.high) if bound > 0 else (-found.high, -found.low)
    if high <= abs(bound):
        return "passed"
    return "failed" if low > abs(bound) else "inconclusive"


def score_change(
    before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]]
) -> Estimate | None:
    """The change of the mean score, with Student's interval over questions; [questions][samples] each.

    Questions are left out if either model has no judged reply to them; None if fewer than half remain. If no
    score changed at all, the interval is the exact one of a change that was not seen in so many replies.
    """
    pairs = [(b, a) for b, a in zip(map(_known, before), map(_known, after), strict=True) if b and a]
    if len(pairs) < 2 or 2 * len(pairs) < len(before):
        return None
    changes = numbers([np.mean(a) - np.mean(b) for b, a in pairs])
    if not changes.any():
        return unseen(min(sum(len(b) for b, _ in pairs), sum(len(a) for _, a in pairs)))
    return clustered_mean(changes, np.arange(len(changes)))


def unseen(replies: int) -> Estimate:
    """0, with the largest share of changes that leaves n replies unchanged with a probability of 2.5 %."""
    most = 100 * (1 - TAIL ** (1 / replies))
    return Estimate(0.0, -most, most)


def _known(scores: Sequence[float | None]) -> list[float]:
    return [score for score in scores if score is not None]
