"""What was done, to how many requests, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from guardrail.serve.dashboard.table import Condition, Records, Table
from guardrail.serve.metrics import NONE
from guardrail.statistics.conformal import observed_fpr
from guardrail.statistics.intervals import Estimate
from guardrail.types import ALLOW

SHOWN_REASONS = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """A condition that held on `count` of these requests, and their median score."""

    condition: Condition
    count: int
    median: float

    @property
    def sign(self) -> str:
        """How the score stands to the threshold."""
        return "≥" if self.median >= self.condition.threshold else "≤"


@dataclass(frozen=True, slots=True)
class Deed:
    """One action by one policy, or for one error (a word of a fixed set; empty if none)."""

    action: str
    policy: str
    error: str
    count: int
    share: Estimate
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One request: times as Unix times in seconds, `guard_ms` in milliseconds."""

    id: str
    time: float
    action: str
    would: str
    policy: str
    outcome: str
    status: str
    error: str
    guard_ms: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Counts [bins] of each action that is not `allow`; `edges` [bins + 1] are Unix times."""

    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]


def share(count: int, of: int) -> Estimate:
    """A share with its 95 % interval (Clopper-Pearson). `of` is at least 1."""
    return Estimate(*observed_fpr(count, of))


def deeds(records: Records) -> list[Deed]:
    """What was done besides allowing, the most frequent first; strange ends come with their error."""
    rows, names = records.requests, records.names
    done = ~records.named("action", ALLOW) | (rows["error"] != 0)
    keys, kinds = np.unique(rows[done][["action", "policy", "error"]], return_inverse=True)
    found = list[Deed]()
    for i, key in enumerate(keys):
        own = np.zeros(len(records), dtype=bool)
        own[np.flatnonzero(done)[kinds == i]] = True
        action, policy, error = (names.values[code] for code in key)
        count = int(own.sum())
        reasons = _reasons(records, own, policy)
        found.append(Deed(action, policy, error, count, share(count, len(records)), reasons))
    return sorted(found, key=lambda one: -one.count)


def _reasons(records: Records, chosen: NDArray[np.bool_], policy: str) -> tuple[Reason, ...]:
    """The conditions of the policy that held on these requests [n]."""
    if not policy:
        return ()
    scores = records.scored(policy)
    return _grouped(records, scores[scores["holds"] & chosen[scores["row"]]])


def _grouped(records: Records, scores: Table) -> tuple[Reason, ...]:
    codes, kinds = np.unique(scores["condition"], return_inverse=True)
    found = [
        Reason(records.conditions.values[code], int(own.sum()), float(np.median(scores["score"][own])))
        for i, code in enumerate(codes)
        if (own := kinds == i).any()
    ]
    return tuple(sorted(found, key=lambda one: -one.count)[:SHOWN_REASONS])


def actions(records: Records) -> dict[str, int]:
    """How many requests met each action; the most frequent first."""
    return {name or NONE: n for name, n in records.names.counted(records.requests["action"]).items()}


def latest(records: Records, count: int) -> list[Entry]:
    """The newest requests, newest first."""
    few = records.newest(count)
    return [_entry(few, place) for place in reversed(range(len(few)))]


def _entry(records: Records, place: int) -> Entry:
    row, values = records.requests[place], records.names.values
    own = records.scores[records.scores["row"] == place]
    return Entry(
        id=row["id"].decode("ascii", "replace"),
        time=float(row["time"]),
        action=values[row["action"]],
        would=values[row["would"]],
        policy=values[row["policy"]],
        outcome=values[row["outcome"]],
        status=values[row["status"]],
        error=values[row["error"]],
        guard_ms=float(row["guard"]),
        reasons=_grouped(records, own[own["holds"]]),
    )


def timeline(records: Records, names: Sequence[str], bins: int = 48) -> Timeline:
    """When these actions happened, in bins of equal length. There is at least one request."""
    times = records.requests["time"]
    low, high = float(times.min()), float(times.max())
    edges = np.linspace(low, max(high, low + bins), bins + 1)
    counts = {
        name: np.histogram(times[records.named("action", name)], edges)[0].astype(np.int64) for name in names
    }
    return Timeline(edges, counts)


def midnight(now: datetime | None = None) -> float:
    """When the day began, in UTC, as a Unix time."""
    moment = now or datetime.now(UTC)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
