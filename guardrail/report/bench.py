"""A benchmark run as one self-contained HTML page. Needs the extra `report` (jinja2, matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.bench.results import Report, Row
from guardrail.bench.tables import HEADINGS, cells
from guardrail.report import check_installed, leads
from guardrail.report.drawing import BLUE, CYCLE, GREY, RED, new, style, svg
from guardrail.report.page import Cell, Drawn, Page, Section, Table, Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, ROW_HEIGHT = 9.2, 0.32
FACTORS = {"prompt": "prompt tokens", "batch": "rows of a batch", "policies": "policies"}
NEEDED_PAIRS = 20


def write_html(report: Report, path: Path) -> None:
    """Write the page. Raises ConfigError if the extra is missing."""
    check_installed()
    page(report).write(path)


def page(report: Report) -> Page:
    """The whole report."""
    drawn = [Drawn(figure, caption) for caption, figure in figures(report.cases)]
    pairs = [(f"pairs of {row.name}", row.pairs) for row in report.cases]
    return Page(
        title="What the guard costs",
        subtitle=_origin(report),
        sections=[
            Section("Results", [_table(report), Text(f"{report.method.capitalize()}.")]),
            *([Section("Figures", drawn)] if drawn else []),
        ],
        notes=[*leads.busy(report.machine), *leads.few(pairs, NEEDED_PAIRS), *report.notes],
        lead=leads.bench(report),
    )


def _origin(report: Report) -> str:
    if (on := report.machine) is None:
        return "nothing was measured"
    packages = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return (
        f"{on.processor}, {on.cores} cores, {on.threads} thread(s), device {on.device}; "
        f"{report.clock} clock; {packages}; {report.time}; load {on.load:.1f}."
    )


def _table(report: Report) -> Table:
    return Table(HEADINGS, [_row(row) for row in report.cases])


def _row(row: Row) -> list[Cell]:
    *first, verdict = cells(row)
    return [*(Cell(text) for text in first), Cell(verdict, tone=leads.tone_of(row.verdict))]


def figures(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(caption, SVG): every ratio with its interval, and a curve per swept factor."""
    shown = [row for row in rows if row.ratio is not None and row.metric != "added time"]
    found = [("Guarded / bare, with 95 % intervals", _forest(shown))] if shown else []
    for factor, label in FACTORS.items():
        if len(curves := swept(shown, factor)) > 0:
            found.append((f"The ratio by {label}", _curves(curves, label)))
    return found


def swept(rows: Sequence[Row], factor: str) -> dict[str, list[tuple[int, Row]]]:
    """By case and metric: the rows along one factor, with the other two as in the first row."""
    base = next((row.point for row in rows if row.point), None)
    if base is None:
        return {}
    others = [name for name in FACTORS if name != factor]
    along = [
        row for row in rows if row.point and all(getattr(row.point, o) == getattr(base, o) for o in others)
    ]
    found: dict[str, list[tuple[int, Row]]] = {}
    for row in along:
        found.setdefault(f"{row.case}: {row.metric}", []).append((getattr(row.point, factor), row))
    return {
        name: sorted(points, key=lambda p: p[0])
        for name, points in found.items()
        if len({p for p, _ in points}) > 1
    }


def _forest(rows: Sequence[Row]) -> str:
    with style():
        figure = new(WIDTH, 1.0 + ROW_HEIGHT * len(rows))
        axes = figure.subplots()
        for place, row in enumerate(reversed(rows)):
            assert row.ratio is not None
            axes.plot([row.ratio.low, row.ratio.high], [place, place], color=BLUE, linewidth=2)
            axes.plot([row.ratio.median], [place], "o", color=BLUE, markersize=4)
            if row.goal is not None and row.goal.value is not None:
                axes.plot([row.goal.value], [place], "|", color=RED, markersize=10)
        axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], fontsize=7)
        axes.axvline(1.0, color=GREY, linewidth=0.8)
        axes.set_xlabel("guarded / bare (upright line: the goal)")
        return svg(figure, "the ratio of every case, with its interval")


def _curve(axes: Axes, points: Sequence[tuple[int, Row]], name: str, colour: str) -> None:
    """Medians with their intervals."""
    ratios = [row.ratio for _, row in points if row.ratio]
    middle = [r.median for r in ratios]
    errors = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
    axes.errorbar(
        [at for at, _ in points], middle, yerr=errors, marker="o", capsize=3, label=name, color=colour
    )


def _curves(curves: dict[str, list[tuple[int, Row]]], label: str) -> str:
    with style():
        figure = new(WIDTH, 3.5)
        axes = figure.subplots()
        for i, (name, points) in enumerate(curves.items()):
            _curve(axes, points, name, CYCLE[i % len(CYCLE)])
        axes.axhline(1.0, color=GREY, linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set(xlabel=label, ylabel="guarded / bare")
        axes.legend(fontsize=7)
        return svg(figure, f"the ratio by {label}")
