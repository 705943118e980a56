"""Goals for ratios and added times, and the verdict that an interval gives.

An interval above the limit fails, one below it passes, and one that contains it is inconclusive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from guardrail.bench.ratios import Interval

Verdict: TypeAlias = Literal["pass", "fail", "inconclusive", "no goal", "not measured"]
WORST: tuple[Verdict, ...] = ("fail", "inconclusive", "not measured", "pass", "no goal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The ratio must be `at most` or `at least` the value, or have the value `within` its interval.

    `slack` widens the limit. `added_ms` also limits the added milliseconds; without a value only those count.
    """

    kind: Literal["at most", "at least", "within"] = "at most"
    value: float | None = None
    slack: float = 0.0
    added_ms: float | None = None

    def verdict(self, ratio: Interval, added: Interval | None = None) -> Verdict:
        """The worse of the two verdicts."""
        found: list[Verdict] = []
        if self.value is not None:
            found.append(self._of_ratio(ratio, self.value))
        if self.added_ms is not None and added is not None:
            found.append(at_most(added, self.added_ms))
        return worst(found)

    def _of_ratio(self, ratio: Interval, value: float) -> Verdict:
        if self.kind == "within":
            return "pass" if ratio.low <= value <= ratio.high else "fail"
        if self.kind == "at least":
            flipped = Interval(median=-ratio.median, low=-ratio.high, high=-ratio.low)
            return at_most(flipped, self.slack - value)
        return at_most(ratio, value + self.slack)

    def __str__(self) -> str:
        sign = {"at most": "<= ", "at least": ">= ", "within": ""}[self.kind]
        parts = [f"{sign}{self.value:g}"] if self.value is not None else []
        if self.kind == "within":
            parts = [f"{self.value:.2f} within"]
        if self.added_ms is not None:
            parts.append(f"+{self.added_ms:g} ms")
        return ", ".join(parts)


def at_most(found: Interval, limit: float) -> Verdict:
    """The verdict on an upper limit; `inconclusive` if the interval contains it."""
    if found.high <= limit:
        return "pass"
    return "fail" if found.low > limit else "inconclusive"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts; `no goal` if there are none."""
    found: list[Verdict] = list(verdicts)
    return min(found, key=WORST.index) if found else "no goal"


def gate(max_pct: float | None, max_ms: float | None) -> Goal | None:
    """The goal of `--max-overhead-pct` and `--max-overhead-ms`; None without either."""
    if max_pct is None and max_ms is None:
        return None
    return Goal(value=None if max_pct is None else 1.0 + max_pct / 100.0, added_ms=max_ms)
