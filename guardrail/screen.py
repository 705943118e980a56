"""All thresholds of a plan at once: whether none is reached."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from guardrail.policy import Fires


class Screen:
    """Compares readings [probes] with (reading, threshold, fires) of every condition."""

    def __init__(self, conditions: Sequence[tuple[int, float, Fires]]) -> None:
        signed = [(reading, 1.0 if fires == "above" else -1.0, t) for reading, t, fires in conditions]
        self._conditions = [(reading, sign, sign * threshold) for reading, sign, threshold in signed]

    def quiet(self, readings: Sequence[float]) -> bool:
        """Whether every score is finite and on the quiet side of its threshold; a score at it is not."""
        return all(-inf < sign * readings[reading] < t for reading, sign, t in self._conditions)
