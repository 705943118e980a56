"""The figures of an evaluation, each from one result. Every function returns an <svg> element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from guardrail.evaluation.confusion import Matrix
from guardrail.evaluation.results import DetectorResult, TraitResult
from guardrail.report.drawing import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    matrix,
    new,
    style,
    svg,
)
from guardrail.statistics.metrics import curve
from guardrail.statistics.nulls import chance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from guardrail.evaluation.results import Samples

BINS = 40
MOST_LINES = 12
"""How many conditions get a line of their own."""


def detection(name: str, trait: TraitResult) -> str:
    """Score histograms and the ROC curve, side by side."""
    with style():
        figure = new(9.2, 2.9)
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        _histograms(left, name, trait)
        _roc(right, trait.samples)
        return svg(figure, f"{name}: histograms of scores, and the ROC curve")


def _histograms(axes: Axes, name: str, trait: TraitResult) -> None:
    samples = trait.samples
    parts = (
        ("does not show it", samples.negative, GREY),
        ("shows another trait", samples.others, ORANGE),
        ("shows it", samples.positive, BLUE),
    )
    known = [part for part in parts if len(part[1])]
    edges = np.histogram_bin_edges(np.concatenate([part[1] for part in known]), BINS).tolist()
    for label, values, colour in known:
        weights = np.full(len(values), 1 / len(values))
        label = f"{label} ({len(values)})"
        axes.hist(values, edges, weights=weights, color=colour, alpha=0.55, label=label, edgecolor="none")
    sign = "negated projection" if trait.fires == "below" else "projection"
    axes.set(title=f"{name}: scores at layer {trait.layer}", xlabel=sign, ylabel="share of prompts")
    axes.legend()


def _roc(axes: Axes, samples: Samples) -> None:
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.8, linestyle=":")
    for label, negative, colour in (
        ("against none", samples.negative, BLUE),
        ("against other traits", samples.others, ORANGE),
    ):
        if len(negative) and len(samples.positive):
            axes.plot(*curve(samples.positive, negative), color=colour, label=label, linewidth=1.6)
    axes.set(
        title="ROC",
        xlabel="false-positive rate",
        ylabel="true-positive rate",
        xlim=(-0.01, 1),
        ylim=(0, 1.01),
    )
    axes.legend(loc="lower right")


def monitoring(name: str, trait: TraitResult) -> str:
    """Expression against projection, with a line through each condition that varies."""
    samples = trait.samples
    flat = set(trait.monitoring.flat) if trait.monitoring else set[str]()
    with style():
        figure = new(9.2, 3.2)
        axes = figure.subplots()
        keys = np.asarray(samples.conditions)
        for i, key in enumerate(dict.fromkeys(sorted(samples.conditions))):
            here, colour = keys == key, CYCLE[i % len(CYCLE)]
            x, y = samples.score[here], samples.expression[here]
            axes.scatter(x, y, s=12, color=colour, alpha=0.55, linewidths=0, label=_named(key, i))
            if key not in flat and i < MOST_LINES and np.ptp(x) > 0:
                slope, offset = np.polyfit(x, y, 1)
                ends = np.array([x.min(), x.max()])
                axes.plot(ends, slope * ends + offset, color=colour, linewidth=1.8)
        axes.set(
            title=f"{name}: later expression against the projection before the first token",
            xlabel=f"projection at layer {trait.layer}",
            ylabel="mean expression",
            ylim=(-3, 103),
        )
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure, f"{name}: expression against projection, by condition")


def _named(condition: str, place: int) -> str | None:
    return (condition or "all prompts") if place < MOST_LINES else None


def layers(traits: Mapping[str, TraitResult]) -> str:
    """AUROC at every layer, with the layers that were evaluated marked."""
    with style():
        figure = new(9.2, 3.0)
        axes = figure.subplots()
        for i, (name, trait) in enumerate(traits.items()):
            if trait.detection:
                found = trait.detection.auroc_by_layer
                axes.plot(
                    *zip(*found.items(), strict=True), color=CYCLE[i % len(CYCLE)], label=name, linewidth=1.5
                )
                axes.plot(trait.layer, found[trait.layer], "o", color=CYCLE[i % len(CYCLE)], markersize=6)
        axes.locator_params(axis="x", integer=True)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, high - 0.1), max(high, low + 0.1) if high < 0.95 else 1.005)
        axes.set(title="AUROC by layer (dot: the layer evaluated)", xlabel="layer", ylabel="AUROC")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure, "AUROC by layer")


def confusion(detectors: Mapping[str, DetectorResult]) -> str:
    """How often each detector fires on each trait's prompts, in per cent."""
    columns = list(dict.fromkeys(c for one in detectors.values() for c in one.fires_on))
    values = [
        [one.fires_on[c].value if c in one.fires_on else float("nan") for c in columns]
        for one in detectors.values()
    ]
    with style():
        figure = new(min(9.2, 3 + 0.8 * len(columns)), 1.2 + 0.36 * len(values))
        axes = figure.subplots()
        matrix(axes, list(detectors), columns, values, colours="Blues", low=0, high=1, percent=True)
        axes.set(title="fires on prompts that show ... (%)")
        return svg(figure, "How often each detector fires on the prompts of each trait, in per cent")


def similarity(cosines: Matrix, coexpression: Matrix | None) -> str:
    """Cosines between probes, next to correlations between expressions."""
    with style():
        names = list(cosines)
        both = coexpression is not None
        figure = new(9.2 if both else 4.8, 1.6 + 0.34 * len(names))
        panels = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
        for axes, title, table in zip(
            panels, ("cosine between probes", "r between expressions"), (cosines, coexpression), strict=False
        ):
            values = [[_number(table[a][b]) for b in names] for a in names] if table else []
            matrix(axes, names, names, values, colours="RdBu_r", low=-1, high=1)
            axes.set(title=title)
        return svg(figure, "Cosines between probes, and correlations between expressions")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def null(name: str, trait: TraitResult) -> str:
    """The observed numbers compared with the results of chance."""
    rows = [
        (label, found)
        for label, found in (
            ("AUROC, random directions", trait.nulls.random_auroc),
            ("AUROC, shuffled labels", trait.nulls.shuffled_auroc),
            ("r, random directions", trait.nulls.random_r_overall),
            ("r within, random directions", trait.nulls.random_r_within),
            ("r within, shuffled replies", trait.nulls.shuffled_r_within),
        )
        if found
    ]
    with style():
        figure = new(9.2, 0.9 + 0.3 * len(rows))
        axes = figure.subplots()
        for i, (_, found) in enumerate(rows):
            axes.plot(
                (found.median, found.high), (i, i), color=GREY, linewidth=7, solid_capstyle="butt", alpha=0.6
            )
            axes.plot(found.observed, i, "D", color=GREEN if found.p < 0.05 else RED, markersize=6)
            axes.text(1.01, i, chance(found), transform=axes.get_yaxis_transform(), va="center", color=INK)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.04)
        axes.set(title=f"{name}: observed (diamond) against the median to the 95th percentile of chance")
        return svg(figure, f"{name}: observed numbers against what chance reaches")
