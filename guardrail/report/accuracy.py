"""The report of `guardrail interpret accuracy`: every persona against none, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from guardrail.interpret.accuracy.results import AccuracyResult, PersonaResult
from guardrail.report import interpret_leads
from guardrail.report.drawing import BLUE, GREY, Named, new, style, svg
from guardrail.report.leads import few
from guardrail.report.page import Block, Cell, Drawn, Page, Section, Table, Text, number, percent, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEANING = (
    "Difference: accuracy with the persona less accuracy without, on the same items, in percentage points "
    "(Newcombe's interval). Changed: items that are answered otherwise. Probability: mean change of the "
    "right option's probability, in percentage points. p: McNemar's exact test; q: p adjusted for the number "
    "of personas (Benjamini-Hochberg)."
)


def page(found: AccuracyResult) -> Page:
    """The whole report."""
    return Page(
        title=f"Accuracy by persona: {found.model}",
        subtitle=f"{len(found.items)} items, asked as {found.form}, scored by {found.scoring}",
        sections=[
            Section("Accuracy", [*_drawn(found), _table(found), Text(MEANING), Text(_differing(found))]),
            Section("By subject", [_subjects(found)]),
            Section("Options chosen", [_letters(found)]),
            Section("Personas", [_texts(found)]),
        ],
        notes=[*found.notes, *few([("items", len(found.items))])],
        lead=interpret_leads.accuracy(found),
    )


def figures(found: AccuracyResult) -> Iterator[Named]:
    """Every figure of the page."""
    yield "Accuracy by persona", dots(found)


def _drawn(found: AccuracyResult) -> list[Block]:
    with style():
        return [Drawn(svg(figure, title)) for title, figure in figures(found)]


def dots(found: AccuracyResult) -> Figure:
    """Accuracy with its interval, a line for each persona; dotted: chance."""
    figure = new(9.2, 1.0 + 0.3 * len(found.personas))
    axes = figure.subplots()
    for row, one in enumerate(found.personas):
        at = one.accuracy
        axes.plot((100 * at.low, 100 * at.high), (row, row), color=GREY, linewidth=2)
        axes.plot(100 * at.value, row, "o", color=BLUE if row else GREY)
    axes.axvline(100 * found.chance, color=GREY, linestyle=":", linewidth=0.8)
    axes.set_yticks(range(len(found.personas)), [_short(one.name) for one in found.personas])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy (%), 95 % interval; dotted: chance", xlim=(-1, 101))
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:37]}..."


def _table(found: AccuracyResult) -> Table:
    head = ("persona", "accuracy", "difference", "changed", "gained", "lost", "probability", "p", "q")
    return Table(head, [_row(one) for one in found.personas])


def _row(one: PersonaResult) -> list[Cell]:
    effect = one.effect
    if effect is None:
        return [Cell(one.name), percent(one.accuracy), *([Cell("–")] * 7)]
    return [
        *(Cell(one.name), percent(one.accuracy), points(effect.difference), percent(effect.changed)),
        *(Cell(str(effect.gained)), Cell(str(effect.lost)), points(effect.probability)),
        *(number(effect.p, 4), number(effect.q, 4)),
    ]


def _differing(found: AccuracyResult) -> str:
    return f"The personas' answers differ on {len(found.changed)} of {len(found.items)} items."


def _subjects(found: AccuracyResult) -> Table:
    subjects = list(found.personas[0].by_subject)
    rows = [[Cell(name), *(percent(one.by_subject[name]) for one in found.personas)] for name in subjects]
    return Table(("subject", *(_short(one.name) for one in found.personas)), rows)


def _letters(found: AccuracyResult) -> Table:
    width = len(found.personas[0].letters)
    rows = [
        [Cell(one.name), *(Cell(f"{100 * share:.0f} %") for share in one.letters)] for one in found.personas
    ]
    return Table(("persona", *(f"option {i + 1}" for i in range(width))), rows)


def _texts(found: AccuracyResult) -> Table:
    return Table(
        ("persona", "text"), [[Cell(one.name), Cell(one.text or "(none)")] for one in found.personas]
    )
