"""Scores against their thresholds, as lengths that a template can draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.types import Score
from guardrail.types.figures import told_apart

ROOM = 0.08
"""How much of the width stays free at each end."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One score. Places are in per cent of the width: `zero`, the bar itself, the `limit`.

    `drawn` is false for a score that is not a number.
    """

    score: Score
    zero: float = 0.0
    left: float = 0.0
    width: float = 0.0
    limit: float = 0.0
    drawn: bool = False

    @property
    def where(self) -> str:
        """What was read."""
        layer = "" if self.score.layer is None else f", layer {self.score.layer}"
        return f"{self.score.trait}{layer}"

    @property
    def said(self) -> str:
        """The bar in words."""
        verdict = "fired" if self.score.fired else "did not fire"
        score, threshold = self.figures
        return f"score {score}, threshold {threshold}: {verdict}"

    @property
    def figures(self) -> tuple[str, str]:
        """The score and its threshold."""
        return told_apart(self.score.score, self.score.threshold)


def bars(scores: Sequence[Score]) -> list[Bar]:
    """A bar for each score, those that fired first. Each has a scale of its own, which contains zero."""
    return [_bar(score) for score in sorted(scores, key=lambda score: not score.fired)]


def _bar(score: Score) -> Bar:
    ends = (0.0, score.score, score.threshold)
    if not all(math.isfinite(end) for end in ends):
        return Bar(score)
    low, high = min(ends), max(ends)
    span = (high - low) * (1 + 2 * ROOM) or 1.0
    zero, end, limit = (round(100 * ((value - low) / span + ROOM / (1 + 2 * ROOM)), 2) for value in ends)
    return Bar(score, zero, min(zero, end), abs(end - zero), limit, drawn=True)
