"""A benchmark run as one self-contained HTML page. Needs the extra `report` (jinja2, matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.bench.results import Report, Row
from guardrail.bench.tables import HEADINGS, cells
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parent / "templates" / "bench.html.j2"
NEEDED = ("jinja2", "matplotlib")
WIDTH, ROW_HEIGHT = 8.0, 0.32
FACTORS = {"prompt": "prompt tokens", "batch": "rows of a batch", "policies": "policies"}


def check_installed() -> None:
    """Raises ConfigError if the extra is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"a page needs {' and '.join(missing)}: install the extra, pip install persona-guardrail[report]"
        )


def write_html(report: Report, path: Path) -> None:
    """Write the page. Raises ConfigError if the extra is missing."""
    check_installed()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The HTML of the page."""
    from jinja2 import Environment

    template = TEMPLATE.read_text(encoding="utf-8")
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            report=report,
            headings=HEADINGS,
            lines=[(row.verdict, cells(row)) for row in report.cases],
            figures=figures(report.cases),
        )
    )


def figures(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(caption, SVG): every ratio with its interval, and a curve per swept factor."""
    shown = [row for row in rows if row.ratio is not None and row.metric != "added time"]
    found = [("Guarded / bare, with 95 % intervals", _svg(_forest(shown)))] if shown else []
    for factor, label in FACTORS.items():
        if len(curves := swept(shown, factor)) > 0:
            found.append((f"The ratio by {label}", _svg(_curves(curves, label))))
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


def _forest(rows: Sequence[Row]) -> Figure:
    figure, axes = _figure(1.0 + ROW_HEIGHT * len(rows))
    for place, row in enumerate(reversed(rows)):
        assert row.ratio is not None
        axes.plot([row.ratio.low, row.ratio.high], [place, place], color="#446688", linewidth=2)
        axes.plot([row.ratio.median], [place], "o", color="#224466", markersize=4)
        if row.goal is not None and row.goal.value is not None:
            axes.plot([row.goal.value], [place], "|", color="#aa3333", markersize=10)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], fontsize=7)
    axes.axvline(1.0, color="#999999", linewidth=0.8)
    axes.set_xlabel("guarded / bare")
    return figure


def _curves(curves: dict[str, list[tuple[int, Row]]], label: str) -> Figure:
    figure, axes = _figure(3.5)
    for name, points in curves.items():
        ratios = [row.ratio for _, row in points if row.ratio]
        middle = [r.median for r in ratios]
        errors = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
        axes.errorbar([at for at, _ in points], middle, yerr=errors, marker="o", capsize=3, label=name)
    axes.axhline(1.0, color="#999999", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xlabel(label)
    axes.set_ylabel("guarded / bare")
    axes.legend(fontsize=7)
    return figure


def _figure(height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().split("?>", 1)[1].split(">", 1)[1]  # without the XML and document type lines
