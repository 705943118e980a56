"""The building blocks of a report, and how they become one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from guardrail.errors import ConfigError
from guardrail.files.whole import write_whole
from guardrail.report.drawing import slug, themed
from guardrail.statistics.intervals import Estimate

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "style.css"

Tone: TypeAlias = Literal["", "good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; `small` is shown next to the text."""

    text: str
    small: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure as an <svg> element, with its caption."""

    kind: ClassVar[str] = "figure"
    svg: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column holds words."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def worded(self) -> list[bool]:
        """Whether each column holds words, and not numbers: most of its filled cells begin as words do."""
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.head)
        return [i == 0 or _worded([cell.text for cell in column]) for i, column in enumerate(columns)]


Block: TypeAlias = Text | Heading | Drawn | Table


def _worded(texts: Sequence[str]) -> bool:
    filled = [text for text in texts if text not in ("", "–")]
    return 2 * sum(text[0].isalpha() or text[0] in "(`'\"" for text in filled) > len(filled)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page, which the page's head links to."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The target of links."""
        return slug(self.title)


@dataclass(frozen=True, slots=True)
class Lead:
    """What somebody who reads one sentence has to know."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report. Without a `lead`, the title says it."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    notes: Sequence[str] = field(default=())
    lead: Lead | None = None

    def html(self) -> str:
        """The self-contained HTML, without scripts or network access."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup

        loader = FileSystemLoader(TEMPLATES)
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        sections = [_marked(section, Markup) for section in self.sections]
        template = environment.get_template("page.html.j2")
        return template.render(
            title=self.title,
            lead=self.lead,
            subtitle=self.subtitle,
            sections=sections,
            notes=self.notes,
            style=Markup(STYLE.read_text(encoding="utf-8")),
        )

    def write(self, path: Path) -> None:
        """Write the file. Raises ConfigError if it cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, self.html().encode())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _marked(section: Section, markup: Any) -> Section:
    """The section with its figures marked as safe. All other blocks are escaped."""
    blocks = [Drawn(markup(themed(b.svg)), b.text) if isinstance(b, Drawn) else b for b in section.blocks]
    return Section(section.title, blocks)


def estimate(value: Estimate | None, digits: int = 3) -> Cell:
    """A number with its interval; a dash if there is none."""
    if value is None:
        return Cell("–")
    return Cell(f"{value.value:.{digits}f}", f"[{value.low:.{digits}f}, {value.high:.{digits}f}]")


def percent(value: Estimate | None) -> Cell:
    """A rate in per cent."""
    if value is None:
        return Cell("–")
    return Cell(f"{100 * value.value:.1f} %", f"[{100 * value.low:.1f}, {100 * value.high:.1f}]")


def points(value: Estimate | None) -> Cell:
    """A difference of two rates, in percentage points."""
    if value is None:
        return Cell("–")
    span = f"[{100 * value.low:+.1f}, {100 * value.high:+.1f}]"
    return Cell(f"{100 * value.value:+.1f} points", span)


def spanned(value: float | None, span: tuple[float, float] | None, digits: int = 2) -> Cell:
    """A number with its interval, if there is one."""
    if value is None or span is None:
        return number(value, digits)
    return estimate(Estimate(value, *span), digits)


def number(value: float | None, digits: int = 2) -> Cell:
    """A number without an interval."""
    return Cell("–" if value is None else f"{value:.{digits}f}")
