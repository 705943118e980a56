"""A trait's scores by layer and token as an SVG element. Colours are classes of `look.css`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from guardrail.types import Array

CELL, LEFT, GAP, LETTER = 16, 34, 6, 6.2
EDGES = (-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0)
"""Scores, in benign standard deviations, at which the colour changes."""
NAMES = ("n4", "n3", "n2", "n1", "z", "p1", "p2", "p3", "p4")
LONGEST = 14
"""Letters of a token that are shown."""


def heatmap(trait: str, grid: Array, tokens: Sequence[str], layer: int, scale: float = 1.0) -> str:
    """Layers upwards, tokens to the right. grid: [layers, tokens], in units of `scale`; NaN stays empty."""
    layers, count = grid.shape
    labels = [_label(token) for token in tokens]
    high = layers * CELL
    below = max((len(label) for label in labels), default=0) * LETTER + 2 * GAP
    width, height = LEFT + count * CELL + GAP + 12, high + below
    parts = [
        f'<svg class="heat" role="img" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" aria-label="{escape(_words(trait, grid, layer))}">',
        *_cells(grid / scale, high),
        *_rows(layers, layer, count),
        *_columns(labels, high),
        "</svg>",
    ]
    return "".join(parts)


def _cells(grid: Array, high: int) -> list[str]:
    """One path for all cells of a colour."""
    bins = np.digitize(grid, EDGES)
    paths = []
    for i, name in enumerate(NAMES):
        places = np.argwhere((bins == i) & np.isfinite(grid))
        drawn = "".join(f"M{LEFT + x * CELL} {high - (y + 1) * CELL}h15v15h-15z" for y, x in places)
        if drawn:
            paths.append(f'<path class="{name}" d="{drawn}"/>')
    return paths


def _rows(layers: int, chosen: int, count: int) -> list[str]:
    step = max(1, layers // 12)
    high = layers * CELL
    shown = sorted({chosen, *range(1, layers + 1, step)} - {n for n in (chosen - 1, chosen + 1) if step > 1})
    texts = [
        f'<text x="{LEFT - GAP}" y="{high - n * CELL + 12}" text-anchor="end"'
        f"{' class=chosen' if n == chosen else ''}>{n}</text>"
        for n in shown
    ]
    box = (
        f'<rect class="chosen" x="{LEFT - 1}" y="{high - chosen * CELL - 1}" '
        f'width="{count * CELL + 1}" height="{CELL + 1}"/>'
    )
    return [*texts, box]


def _columns(labels: Sequence[str], high: int) -> list[str]:
    return [
        f'<text transform="translate({LEFT + x * CELL + 11} {high + GAP}) rotate(-90)" '
        f'text-anchor="end">{escape(label)}</text>'
        for x, label in enumerate(labels)
    ]


def _label(token: str) -> str:
    shown = token.replace("\n", "↵").replace("\t", "⇥").strip() or "␣"
    shown = "".join(letter if letter.isprintable() else "·" for letter in shown)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


def _words(trait: str, grid: Array, layer: int) -> str:
    row = grid[layer - 1]
    if not len(row) or not np.isfinite(row).any():
        return f"{trait}: nothing could be read"
    return (
        f"{trait}: scores by layer and token; at layer {layer} from {np.nanmin(row):.1f} to "
        f"{np.nanmax(row):.1f}, at the last token {row[-1]:.1f}"
    )
