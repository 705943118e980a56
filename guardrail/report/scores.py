"""Figures of calibrated scores: distributions beside thresholds, and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guardrail.calibration.benign import Benign
from guardrail.report.drawing import INK, new, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60
LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Projections on one probe; `unit` are the benign ones, whose mean and deviation make scores of them."""

    name: str
    values: Benign
    unit: Benign
    colour: str

    def score(self, percent: float) -> float:
        """The score at a percentile."""
        return self.unit.standardise(self.values.percentile(percent))

    def shares(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share in each bin between scores [k + 1]."""
        raw = edges * self.unit.sd + self.unit.mean
        return self.values.shares((raw - self.values.mean) / self.values.sd)


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold in scores, with its interval; both ends are the threshold itself if it was given."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Layers:
    """Benign and labelled prompts at every layer; `layer` is the one that the thresholds read."""

    benign: Mapping[int, Distribution]
    showing: Mapping[int, Distribution]
    layer: int


def drawn(title: str, shown: Sequence[Distribution], limits: Sequence[Limit], layers: Layers | None) -> str:
    """Distributions on one scale with the thresholds; beside them, the scores of every layer."""
    with style():
        figure = new(9.2, 3.3)
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1)) if layers else (figure.subplots(), None)
        _histogram(left, title, shown, limits)
        if layers and right:
            _by_layer(right, layers, limits)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3)
        return svg(figure, f"{title}: histograms of scores, with thresholds")


def _histogram(axes: Axes, title: str, shown: Sequence[Distribution], limits: Sequence[Limit]) -> None:
    ends = [one.score(percent) for one in shown for percent in (0, 100)] + [one.value for one in limits]
    margin = 0.04 * (max(ends) - min(ends)) or 1.0
    edges = np.linspace(min(ends) - margin, max(ends) + margin, BINS + 1)
    for one in shown:
        shares, label = one.shares(edges), f"{one.name} ({one.values.n})"
        axes.stairs(shares, edges, color=one.colour, fill=True, alpha=0.35)
        axes.stairs(shares, edges, color=one.colour, linewidth=1.3, label=label)
    for i, limit in enumerate(limits):
        _upright(axes, limit, LINES[i % len(LINES)], edges)
    axes.set(title=title, xlabel="score", ylabel="share of prompts", xlim=(edges[0], edges[-1]))


def _upright(axes: Axes, limit: Limit, line: str, edges: NDArray[np.float64]) -> None:
    axes.axvline(limit.value, color=INK, linewidth=1.2, linestyle=line, label=f"threshold: {limit.name}")
    low, high = max(limit.low, float(edges[0])), min(limit.high, float(edges[-1]))
    if low < high:
        axes.axvspan(low, high, color=INK, alpha=0.1, linewidth=0)


def _by_layer(axes: Axes, layers: Layers, limits: Sequence[Limit]) -> None:
    for table in (layers.benign, layers.showing):
        places, colour = sorted(table), next(iter(table.values())).colour
        low, middle, high = ([table[at].score(percent) for at in places] for percent in (5, 50, 95))
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(places, middle, "o-", color=colour, markersize=3)
    for one in limits:
        axes.plot(layers.layer, one.value, "_", color=INK, markersize=14, markeredgewidth=2)
    axes.locator_params(axis="x", integer=True)
    axes.set(title="by layer", xlabel="layer", ylabel="score")
