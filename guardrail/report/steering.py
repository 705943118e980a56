"""The trade-off figure of a steering sweep: trait, coherence and capability over the strength of steering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guardrail.evaluation.sweep import COHERENT, Point, SteeringSweep
from guardrail.report.drawing import BLUE, GREEN, GREY, RED, new, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from guardrail.statistics.intervals import Estimate

MEANING = {
    "add": "multiples of the trait vector",
    "ablate": "share of the projection taken away",
    "cap": "benign percentile of the cap",
}
SPANS = {"single": "one layer", "several": "several layers", "incremental": "all layers"}
LINES = (
    ("expression", RED, "trait"),
    ("coherence", BLUE, "coherence"),
    ("capability", GREEN, "capability (%)"),
)


def trade_off(sweep: SteeringSweep, trait: str) -> str:
    """A panel per operator and span; dashed lines are the unsteered model."""
    points = sweep.of(trait)
    operators = [name for name in MEANING if any(p.operator == name for p in points)]
    with style():
        figure = new(9.2, 2.1 * len(operators) + 0.5)
        panels = figure.subplots(len(operators), len(SPANS), sharey=True, squeeze=False)
        for row, operator in zip(panels, operators, strict=True):
            for axes, span in zip(row, SPANS, strict=True):
                _panel(axes, points, operator, span)
            row[0].set_ylabel(operator)
            row[1].set_xlabel(MEANING[operator])
        for axes, span in zip(panels[0], SPANS.values(), strict=True):
            axes.set_title(span)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        return svg(figure, f"{trait}: trait, coherence and capability over the strength of steering")


def _panel(axes: Axes, points: Sequence[Point], operator: str, span: str) -> None:
    own = sorted(
        (p for p in points if p.operator == operator and p.span == span), key=lambda p: p.coefficient
    )
    for name, colour, label in LINES:
        for prompts in dict.fromkeys(p.prompts for p in own):
            part = [p for p in own if p.prompts == prompts]
            known = [(p.coefficient, estimate) for p in part if (estimate := _hundred(p, name)) is not None]
            if known:
                _line(axes, known, colour, label if part[0] is own[0] else None)
            _baseline(axes, points, prompts, name, colour, part)
    axes.axhline(COHERENT, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_ylim(-4, 104)
    if operator == "cap":
        axes.invert_xaxis()


def _line(axes: Axes, known: Sequence[tuple[float, Estimate]], colour: str, label: str | None) -> None:
    x = [coefficient for coefficient, _ in known]
    axes.plot(x, [e.value for _, e in known], "o-", color=colour, label=label, markersize=3, linewidth=1.4)
    axes.fill_between(
        x, [e.low for _, e in known], [e.high for _, e in known], color=colour, alpha=0.13, linewidth=0
    )


def _baseline(
    axes: Axes, points: Sequence[Point], prompts: str, name: str, colour: str, part: Sequence[Point]
) -> None:
    plain = next((p for p in points if p.operator is None and p.prompts == prompts), None)
    estimate = _hundred(plain, name) if plain else None
    if estimate and part:
        ends = (part[0].coefficient, part[-1].coefficient)
        axes.plot(ends, (estimate.value,) * 2, color=colour, linestyle="--", linewidth=0.9)


def _hundred(point: Point, name: str) -> Estimate | None:
    """The value on the 0 to 100 scale of scores."""
    from guardrail.statistics.intervals import Estimate

    found: Estimate | None = getattr(point, name)
    if found is None or name != "capability":
        return found
    return Estimate(100 * found.value, 100 * found.low, 100 * found.high)
