"""All thresholds of a plan at once: whether none is reached, in one comparison of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.policy import Fires
from guardrail.types import Array


class Screen:
    """Compares readings [probes] with (reading, threshold, fires) of every condition."""

    def __init__(self, conditions: Sequence[tuple[int, float, Fires]]) -> None:
        signs = [1.0 if fires == "above" else -1.0 for _, _, fires in conditions]
        self._readings = np.asarray([reading for reading, _, _ in conditions], dtype=np.intp)
        self._signs: Array = np.asarray(signs)
        self._thresholds: Array = self._signs * [threshold for _, threshold, _ in conditions]

    def quiet(self, readings: Sequence[float]) -> bool:
        """Whether every score is finite and on the quiet side of its threshold; a score at it is not."""
        scores = np.asarray(readings)[self._readings] * self._signs
        return bool(((scores < self._thresholds) & (scores > -np.inf)).all())
