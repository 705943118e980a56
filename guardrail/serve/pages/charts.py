"""Draws the dashboard's figures: SVG whose colours are classes of the style sheet, with a text for those who
do not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log1p

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from guardrail.serve.dashboard.activity import Timeline
from guardrail.serve.dashboard.firing import Histogram

WIDTH, HEIGHT = 400, 150
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 16, 20
"""What is left free around the plot. A slider below it has the same margins."""
Scale = Callable[[float], float]


def histogram(found: Histogram, other: float | None = None) -> Markup:
    """Scores on a logarithmic scale of counts; bars that fire at `other` (or in force) are marked."""
    low, high = float(found.edges[0]), float(found.edges[-1])
    condition = found.condition
    shown = condition.threshold if other is None else other
    x = _scale(low, high, LEFT, WIDTH - RIGHT)
    most = max(float(found.counts.max()), 1.0 if found.expected is None else float(found.expected.max()))
    y = _scale(0.0, log1p(most), HEIGHT - BOTTOM, TOP)
    above = condition.fires == "above"
    bars = [
        _bar(x(a), x(b), y(log1p(int(n))), "fired" if _beyond((a + b) / 2, shown, above) else "quiet")
        for a, b, n in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True)
        if n
    ]
    parts = [*bars, _outline(found, x, y), *_axis(low, high, x), _limit(x(condition.threshold), "in force")]
    if other is not None:
        parts.append(_limit(x(min(max(other, low), high)), "tried", 26))
    return _svg(_told(found, other), parts)


def _told(found: Histogram, other: float | None) -> str:
    one, total = found.condition, int(found.counts.sum())
    text = (
        f"Histogram of {total:,} scores of {one.trait}: from {found.edges[0]:.1f} to {found.edges[-1]:.1f}, "
        f"threshold {one.threshold:.2f}"
    )
    return text if other is None else f"{text}, tried {other:.2f}"


def _beyond(score: float, threshold: float, above: bool) -> bool:
    return score >= threshold if above else score <= threshold


def _outline(found: Histogram, x: Scale, y: Scale) -> str:
    if found.expected is None:
        return ""
    points = list[str]()
    for a, b, n in zip(found.edges[:-1], found.edges[1:], found.expected, strict=True):
        height = y(log1p(float(n)))
        points += [f"{x(a):.1f},{height:.1f}", f"{x(b):.1f},{height:.1f}"]
    return f'<polyline class="benign" points="{" ".join(points)}"/>'


def _limit(x: float, text: str, below: float = TOP) -> str:
    end = x > WIDTH * 0.75
    place = f'x="{x + (-4 if end else 4):.1f}" y="{below - 4:.0f}" text-anchor="{"end" if end else "start"}"'
    kind = "limit" if text == "in force" else "limit tried"
    line = f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{below - 12:.0f}" y2="{HEIGHT - BOTTOM}"/>'
    return f"{line}<text {place}>{escape(text)}</text>"


def _axis(low: float, high: float, x: Scale) -> list[str]:
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 1e9) if (high - low) / step <= 10)
    ticks = np.arange(np.ceil(low / step) * step, high, step)
    line = (
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'
    )
    return [
        line,
        *(f'<text x="{x(t):.1f}" y="{HEIGHT - 5}" text-anchor="middle">{t:g}</text>' for t in ticks),
    ]


def timeline(found: Timeline, clock: Callable[[float], str]) -> Markup:
    """What the guard did over time, as stacked bars. `clock` writes a Unix time."""
    names = list(found.counts)
    stacked = np.cumsum([found.counts[name] for name in names], axis=0)
    most = max(int(stacked[-1].max()), 1)
    x = _scale(float(found.edges[0]), float(found.edges[-1]), LEFT, WIDTH - RIGHT)
    y = _scale(0.0, most, HEIGHT - BOTTOM, TOP)
    parts = list[str]()
    for name, tops, counts in zip(names, stacked, found.counts.values(), strict=True):
        parts += _stack(name, found.edges, tops, counts, x, y)
    ends = ((LEFT, "start", found.edges[0]), (WIDTH - RIGHT, "end", found.edges[-1]))
    parts += [
        f'<text x="{place}" y="{HEIGHT - 5}" text-anchor="{anchor}">{escape(clock(float(time)))}</text>'
        for place, anchor, time in ends
    ]
    parts.append(f'<text x="{LEFT}" y="{TOP - 5}">at most {most} in one bar</text>')
    totals = ", ".join(f"{name} {int(counts.sum())}" for name, counts in found.counts.items())
    return _svg(
        f"What was done over time: {totals}; at most {most} in one of {len(found.edges) - 1} parts", parts
    )


def _stack(
    name: str,
    edges: NDArray[np.float64],
    tops: NDArray[np.int64],
    counts: NDArray[np.int64],
    x: Scale,
    y: Scale,
) -> Sequence[str]:
    rows = zip(edges[:-1], edges[1:], tops, counts, strict=True)
    return [_bar(x(a), x(b), y(float(top)), f"act-{name}", y(float(top - n))) for a, b, top, n in rows if n]


def bars(values: Mapping[str, float]) -> Mapping[str, Markup]:
    """A bar for each value, all on one scale."""
    most = max(values.values(), default=0.0) or 1.0
    return {
        name: Markup(
            '<svg class="bar small" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="track" width="100" height="10"/>'
            f'<rect class="fill" width="{100 * value / most:.2f}" height="10"/></svg>'
        )
        for name, value in values.items()
    }


def _bar(x1: float, x2: float, top: float, kind: str, bottom: float = HEIGHT - BOTTOM) -> str:
    width, height = max(x2 - x1 - 0.6, 0.6), max(bottom - top, 0.6)
    place = f'x="{x1:.1f}" y="{bottom - height:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{escape(kind)}" {place}/>'


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (end - start) * (value - low) / ((high - low) or 1.0)


def _svg(text: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" role="img" aria-label="{escape(text)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{''.join(parts)}</svg>"
    )
