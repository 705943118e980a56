"""What the guard costs, and what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from guardrail.serve.dashboard.table import Records
from guardrail.serve.metrics import NONE

PARTS = {"guard": "guard", "prefill": "model", "queue": "queue", "total": "whole request"}
STOPS = ("block", "escalate", "rephrase")


@dataclass(frozen=True, slots=True)
class Latency:
    """One part of requests, in milliseconds."""

    name: str
    median: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Times of `requests` that reached the model. `share`: the guard's part of guard and model together."""

    requests: int
    share: float
    parts: tuple[Latency, ...]

    @property
    def guard(self) -> Latency:
        """The guard's own time."""
        return self.parts[0]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong: errors by class, and requests that were not evaluated, by what became of them."""

    errors: Mapping[str, int]
    not_evaluated: int
    stopped: int
    fail_open: int
    interrupted: int

    @property
    def any(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.errors or self.not_evaluated or self.interrupted)


def cost(records: Records) -> Cost | None:
    """Latencies; None if no request reached the model."""
    rows = records.requests[records.requests["prefill"] > 0]
    if not len(rows):
        return None
    parts = [
        Latency(shown, *map(float, np.percentile(rows[name], (50, 95, 99)))) for name, shown in PARTS.items()
    ]
    guard, model = float(rows["guard"].sum()), float(rows["prefill"].sum())
    return Cost(len(rows), guard / (guard + model), tuple(parts))


def trouble(records: Records) -> Trouble:
    """Errors, fail-open, and requests without an outcome."""
    rows = records.requests
    unread = ~records.named("status", "evaluated")
    went_on = unread & records.named("action", "allow", "steer")
    errors = {name: n for name, n in records.names.counted(rows["error"]).items() if name}
    return Trouble(
        errors=errors,
        not_evaluated=int(unread.sum()),
        stopped=int((unread & records.named("action", *STOPS, NONE)).sum()),
        fail_open=int(went_on.sum()),
        interrupted=int(records.named("outcome", "interrupted").sum()),
    )
