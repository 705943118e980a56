"""Formats rows as table lines, for a terminal, a README or an HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from guardrail.bench.ratios import Interval
from guardrail.bench.results import Row

HEADINGS = ("case", "guarded / bare", "added ms", "bare ms", "pairs", "goal", "verdict")
Cells: TypeAlias = tuple[str, ...]


def markdown(rows: Iterable[Row]) -> str:
    """A table for a README."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(row: Row) -> Cells:
    """One line of a table."""
    goal = "" if row.goal is None else str(row.goal)
    if row.ratio is None or row.added_ms is None or row.bare_ms is None:
        return (row.name, "not measured", "", "", "", goal, row.note or "not measured")
    return (
        row.name,
        with_interval(row.ratio, 3),
        with_interval(row.added_ms, 2),
        f"{row.bare_ms:.2f}",
        str(row.pairs),
        goal,
        row.verdict,
    )


def with_interval(values: Interval, digits: int) -> str:
    """`median (low to high)`."""
    return f"{values.median:.{digits}f} ({values.low:.{digits}f} to {values.high:.{digits}f})"
