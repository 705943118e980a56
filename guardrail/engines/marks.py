"""Marks in text that comes piece by piece."""

from __future__ import annotations

from collections.abc import Sequence


def begun(text: str, marks: Sequence[str]) -> int:
    """How many of the last characters could be the beginning of one of the marks."""
    longest = max(map(len, marks), default=1) - 1
    tails = (text[-length:] for length in range(min(longest, len(text)), 0, -1))
    return next((len(tail) for tail in tails if any(mark.startswith(tail) for mark in marks)), 0)
