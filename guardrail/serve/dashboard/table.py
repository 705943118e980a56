"""Requests as columns of numbers: a hundred bytes each, whatever their records hold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from guardrail.serve.dashboard.lines import DecisionRow, RequestRow
from guardrail.serve.metrics import NONE, error_kind

REQUEST = np.dtype(
    [
        ("id", "S40"),
        ("time", "f8"),
        ("prompt", "i8"),
        *[(name, "u2") for name in ("status", "action", "would", "policy", "outcome", "error", "hashes")],
        *[(name, "f4") for name in ("guard", "prefill", "queue", "total")],
    ]
)
SCORE = np.dtype(
    [("row", "u4"), ("condition", "u2"), ("score", "f8"), ("holds", "?"), ("fired", "?"), ("enforced", "?")]
)
MAX_CODES = 60_000
Table: TypeAlias = NDArray[np.void]
T = TypeVar("T", bound=Hashable)


class Codes(Generic[T]):
    """Numbers for values. `rest` stands for all beyond the first 60,000: no log can fill the memory."""

    def __init__(self, rest: T) -> None:
        self.values = [rest]
        self._known = {rest: 0}

    def code(self, value: T) -> int:
        """The number of a value."""
        known = self._known.get(value)
        if known is None:
            if len(self.values) >= MAX_CODES:
                return 0
            known = self._known[value] = len(self.values)
            self.values.append(value)
        return known

    def counted(self, codes: NDArray[Any]) -> dict[T, int]:
        """How often each value is among these numbers; the most frequent first."""
        counts = np.bincount(codes, minlength=1)
        found = [(self.values[i], int(counts[i])) for i in np.flatnonzero(counts)]
        return dict(sorted(found, key=lambda one: -one[1]))


@dataclass(frozen=True, slots=True)
class Condition:
    """What a score was compared with. `layer` is None for a scorer that reads no layer."""

    policy: str
    trait: str
    layer: int | None
    threshold: float
    mode: str


@dataclass(frozen=True, slots=True)
class Hashes:
    """What decided on a request."""

    policy: str = ""
    vectors: str = ""
    calibration: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Records:
    """Requests [n] and their scores [m]; `scores["row"]` is a place in `requests`."""

    requests: Table
    scores: Table
    names: Codes[str]
    conditions: Codes[Condition]
    hashes: Codes[Hashes]

    def __len__(self) -> int:
        return len(self.requests)

    def where(self, chosen: NDArray[np.bool_]) -> Records:
        """Some of the requests [n], with their scores."""
        scores = self.scores[chosen[self.scores["row"]]]
        scores["row"] = (np.cumsum(chosen) - 1)[scores["row"]]
        return replace(self, requests=self.requests[chosen], scores=scores)

    def newest(self, count: int) -> Records:
        """The last requests."""
        return self.where(np.arange(len(self)) >= len(self) - count)

    def since(self, time: float) -> Records:
        """The requests that came at this Unix time or later."""
        return self.where(self.requests["time"] >= time)

    def named(self, column: str, *names: str) -> NDArray[np.bool_]:
        """The requests [n] that have one of these names in a column."""
        return np.isin(self.requests[column], [self.names.code(name) for name in names])

    def scored(self, policy: str, trait: str | None = None, layer: int | None = None) -> Table:
        """The scores of a policy, or of one of its conditions whatever its threshold and mode."""
        wanted = [
            one.policy == policy and (trait is None or (one.trait, one.layer) == (trait, layer))
            for one in self.conditions.values
        ]
        return self.scores[np.asarray(wanted)[self.scores["condition"]]]

    def marked(self, scores: Table) -> NDArray[np.bool_]:
        """The requests [n] that have at least one of these scores."""
        found = np.zeros(len(self), dtype=bool)
        found[scores["row"]] = True
        return found


class Block:
    """A part of the log. Rows are added until it is frozen into `Records`."""

    def __init__(self, names: Codes[str], conditions: Codes[Condition], hashes: Codes[Hashes]) -> None:
        self._names, self._conditions, self._hashes = names, conditions, hashes
        self._requests = list[tuple[object, ...]]()
        self._scores = list[tuple[object, ...]]()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, row: RequestRow) -> None:
        """Raises ValueError for a time that is none."""
        time = unix(row.time)
        place = len(self._requests)
        self._requests.append(self._request(row, time))
        for decision in (row.decision, row.reply_decision):
            if decision is not None:
                self._scores += self._scored(place, decision)

    def records(self) -> Records:
        """What was added so far."""
        requests, scores = np.array(self._requests, REQUEST), np.array(self._scores, SCORE)
        return Records(requests, scores, self._names, self._conditions, self._hashes)

    def _request(self, row: RequestRow, time: float) -> tuple[object, ...]:
        final, first, name = row.final, row.decision, self._names.code
        hashes = Hashes(first.policy_sha256, first.vectors_sha256, first.calibration_sha256, row.fingerprint)
        ended = row.outcome not in ("error", "cancelled")
        error = row.error or final.error
        timing = row.timing
        return (
            row.id.encode("ascii", "replace"),
            time,
            hash(row.prompt_sha256),
            name(final.status),
            name((final.otherwise or final.action) if ended else NONE),
            name(final.would_action if ended else NONE),
            name(final.policy or ""),
            name(row.outcome or "interrupted"),
            name(error_kind(error) if error else ""),
            self._hashes.code(hashes),
            *(timing.guard or 0.0, timing.prefill or 0.0, timing.queue or 0.0, timing.total or 0.0),
        )

    def _scored(self, place: int, decision: DecisionRow) -> list[tuple[object, ...]]:
        fired = set(decision.fired)
        rows = list[tuple[object, ...]]()
        for one in decision.scores:
            if one.score is None or one.threshold is None:
                continue
            condition = Condition(one.policy, one.trait, one.layer, one.threshold, one.mode)
            code, enforced = self._conditions.code(condition), one.mode == "enforce"
            rows.append((place, code, one.score, one.fired, one.policy in fired, enforced))
        return rows


def joined(parts: Sequence[Records]) -> Records:
    """Parts of one log, oldest first, as one. There is at least one part."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    scores = np.concatenate([part.scores for part in parts])
    scores["row"] += np.repeat(starts[:-1], [len(part.scores) for part in parts]).astype(np.uint32)
    return replace(parts[0], requests=np.concatenate([part.requests for part in parts]), scores=scores)


def unix(time: str) -> float:
    """The Unix time of an audit record's time, in seconds. Raises ValueError."""
    moment = datetime.fromisoformat(time)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
