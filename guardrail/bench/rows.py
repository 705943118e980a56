"""Turns a recording of whole replies into rows: first token, time per token, reply and throughput."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from guardrail.bench.clocks import Laps
from guardrail.bench.goals import Goal
from guardrail.bench.pairs import Recorded, first, per_token, steps, total
from guardrail.bench.ratios import Timings
from guardrail.bench.results import Point, Row, Two, measured

METRICS: Mapping[str, Callable[[Laps], float]] = {
    "first token": first,
    "per token": per_token,
    "reply": total,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """The description of a recording. goals: by metric."""

    case: str
    point: Point
    new_tokens: int
    prefix: str = ""
    goals: Mapping[str, Goal | None] = field(default_factory=dict[str, Goal | None])
    note: str = ""

    def name(self, metric: str) -> str:
        """The name of the row for a metric."""
        return f"{self.prefix}{self.case}: {metric} ({self.point})"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics to report. A reply of one token has no time per token."""
        return tuple(METRICS) if self.new_tokens > 1 else ("first token",)

    def rows(self, recorded: Recorded, peak: Two | None = None) -> Iterator[Row]:
        """One row per metric."""
        for metric in self.metrics:
            timings = recorded.timings(METRICS[metric])
            yield measured(
                self.name(metric),
                timings,
                self.goals.get(metric),
                spread=_steps(recorded) if metric == "per token" else None,
                case=self.case,
                metric=metric,
                point=self.point,
                tokens_per_s=self._throughput(timings) if metric == "reply" else None,
                peak_mib=peak,
                note=self.note,
            )

    def throughput(self, recorded: Recorded) -> Row:
        """The ratio of tokens per second over the whole reply, guarded / bare."""
        timings = recorded.timings(total)
        return measured(
            self.name("throughput"),
            timings,
            self.goals.get("throughput"),
            inverted=True,
            case=self.case,
            metric="throughput",
            point=self.point,
            tokens_per_s=self._throughput(timings),
            note="the ratio is that of tokens per second",
        )

    def _throughput(self, timings: Timings) -> Two:
        tokens = 1e3 * self.point.batch * self.new_tokens
        return Two(
            guarded=tokens / float(np.median(timings.guarded)), bare=tokens / float(np.median(timings.bare))
        )


def _steps(recorded: Recorded) -> Timings:
    return Timings(
        tuple(step for laps in recorded.guarded for step in steps(laps)),
        tuple(step for laps in recorded.bare for step in steps(laps)),
    )
