"""Draws figures as self-contained inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, TypeAlias

from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Named: TypeAlias = "tuple[str, Figure]"
"""A figure with its title, of which the name of its files is made."""
# Okabe and Ito (2008): colours that colour-blind people can tell apart
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#7f8790"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, "#56b4e9", "#8a6d00", "#000000")
INK = "#22272e"
NARROW = 4.0
"""Inches: about as wide as the page on a phone, so that letters stay as large as drawn."""
LETTERS, ROW_LETTERS = 32, 20
"""Of titles and labels that fit above and below axes so wide, and of names on their left."""
ON_LIGHT = "#1f2328"
"""Text on a light colour, which stays light when the page is dark."""
VARIABLES = {
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    RED: "red",
    PURPLE: "purple",
    GREY: "grey",
    INK: "ink",
    CYCLE[5]: "sky",
    CYCLE[6]: "olive",
    CYCLE[7]: "ink",
}
"""The variables of the style sheet that stand for these colours in pages, light and dark."""
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    # the page's own ground shows through
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "svg.hashsalt": "guardrail",
    # letters as paths, so that the file looks the same everywhere
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Generator[None]:
    """Sets the style of all figures while one is drawn."""
    from matplotlib import rc_context

    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        yield


def new(width: float, height: float) -> Figure:
    """An empty figure, in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, text: str) -> str:
    """The figure as an <svg> element, and a second one, drawn narrower, that phones show in its place.

    Panels side by side are drawn once: phones scroll them. Screen readers read out `text`.
    """
    wide = figure.get_figwidth()
    if wide <= NARROW or _columns(figure) > 1:
        return _element(figure, text)
    drawn = _element(figure, text, "wide")
    with _narrowed(figure):
        return drawn + _element(figure, text, "narrow")


@contextmanager
def _narrowed(figure: Figure) -> Generator[None]:
    """With titles, labels and names of rows in several lines, and room for those."""
    width, height = figure.get_size_inches()
    texts = [(axes, axes.get_title(loc="left"), axes.get_xlabel(), _rows(axes)) for axes in figure.axes]
    for axes, title, label, rows in texts:
        _write(axes, fill(title, LETTERS), fill(label, LETTERS), [fill(row, ROW_LETTERS) for row in rows])
    lines = max((fill(row, ROW_LETTERS).count("\n") + 1 for *_, rows in texts for row in rows), default=1)
    figure.set_size_inches(NARROW, height * max(1.0, 0.7 * lines))
    yield
    figure.set_size_inches(width, height)
    for axes, title, label, rows in texts:
        _write(axes, title, label, rows)


def _rows(axes: Axes) -> list[str]:
    """The names on the left, of axes that have names there and not numbers."""
    from matplotlib.ticker import FixedLocator

    named = isinstance(axes.yaxis.get_major_locator(), FixedLocator)
    return [label.get_text() for label in axes.get_yticklabels()] if named else []


def _write(axes: Axes, title: str, label: str, rows: Sequence[str]) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(label)
    if rows:
        axes.set_yticks(axes.get_yticks(), rows)


def _columns(figure: Figure) -> int:
    specs = [spec for axes in figure.axes if (spec := axes.get_subplotspec())]
    return max((spec.get_gridspec().ncols for spec in specs), default=1)


def _element(figure: Figure, text: str, name: str = "") -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    body = buffer.getvalue()
    body = body[body.index("<svg") :]
    # the metadata block contains URLs; nothing is fetched, and nothing should look as if it were
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    widest = f"max-width: {96 * figure.get_figwidth():.0f}px"
    named = f' class="{name}"' if name else ""
    return body.replace("<svg", f'<svg{named} role="img" aria-label="{escape(text)}" style="{widest}"', 1)


def themed(drawn: str) -> str:
    """A figure inside a page, in the page's colours."""
    for colour, name in VARIABLES.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    return drawn


def matrix(
    axes: Axes,
    rows: list[str],
    columns: list[str],
    values: list[list[float]],
    *,
    colours: str,
    low: float,
    high: float,
    percent: bool = False,
) -> None:
    """A heat map with its numbers in the cells; NaN stays empty."""
    axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if value == value:
                shown = f"{100 * value:.0f}" if percent else f"{value:.2f}"
                dark = abs(value) > 0.6 * max(abs(low), abs(high))
                ink = "white" if dark else ON_LIGHT
                axes.text(j, i, shown, ha="center", va="center", fontsize=8, color=ink)


def write(figures: Iterable[Named], folder: Path) -> None:
    """Write each figure as NAME.png and NAME.svg. Raises ConfigError if the folder cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with style():
            for name, figure in figures:
                for kind in ("png", "svg"):
                    # alone it has no page behind it
                    figure.savefig(folder / f"{slug(name)}.{kind}", dpi=200, facecolor="white")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error


def slug(text: str) -> str:
    """A title as the name of a file or the target of a link."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
