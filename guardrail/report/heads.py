"""The report of `guardrail interpret heads`: heat maps of heads, a table of those found, scaled heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from guardrail.interpret.heads.results import AblationResult, HeadResult, HeadStudy
from guardrail.report import interpret_leads
from guardrail.report.drawing import INK, Named, new, style, svg
from guardrail.report.leads import few
from guardrail.report.page import Block, Cell, Drawn, Page, Section, Table, Text, number, percent, points
from guardrail.statistics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_WORDS = 20
"""Below so many words of a group, or prompts with each, the report says that there are few."""
MEANING = (
    "Shares of the value-weighted attention from the answer position: on the group's word, on a neutral word "
    "in its place, and on a token of the rest of the prompt at the mean (without the first and the last "
    "token). g: word less neutral in pooled standard deviations over words (Hedges). q: p of the permutation "
    "test over words, adjusted for all heads and groups (Benjamini-Hochberg). Heads are listed if both "
    "comparisons have q < 0.05. Words differ in more than their group (how often they occur, say)."
)
SCALED = (
    "Effect: how far answers' probabilities move with a word of the group (total variation from the mean "
    "over neutral words) less what neutral words move among themselves. Intervals: bootstrap over items. "
    "Changes: percentage points. Random: as many other heads of the same layers."
)


def page(study: HeadStudy, found: AblationResult | None) -> Page:
    """The whole report."""
    sections = [
        *(_read(study) if study.results else []),
        *([Section("Heads scaled", [_scaled(found), Text(SCALED)])] if found else []),
        Section("Settings", [_settings(study), _rejected(study)]),
    ]
    words = ", ".join(f"{len(words)} {group}" for group, words in study.words.items())
    return Page(
        title=f"Heads and groups: {study.model}",
        subtitle=f"{study.layers} layers of {study.heads} heads; {words} words",
        sections=sections,
        notes=[*study.notes, *_few(study)],
        lead=interpret_leads.heads(study, found),
    )


def _few(study: HeadStudy) -> list[str]:
    words = ((f"words of {group}", len(words)) for group, words in study.words.items())
    return few([("prompts", study.contexts), *words], FEW_WORDS)


def _read(study: HeadStudy) -> list[Section]:
    return [
        Section("Heads by group", [*_drawn(study), _counts(study), Text(MEANING)]),
        Section("Heads found", [_found(study)]),
    ]


def figures(study: HeadStudy) -> Iterator[Named]:
    """Every figure of the page."""
    if study.results:
        yield "heads by group", excess(study)


def _drawn(study: HeadStudy) -> list[Block]:
    text = "Excess attention to each group by layer and head; dots: heads found"
    with style():
        return [Drawn(svg(figure, text)) for _, figure in figures(study)]


def excess(study: HeadStudy) -> Figure:
    """A layer x head map of the excess over neutral words for each group; dots: heads found."""
    figure = new(9.2, 1.6 + 0.14 * study.layers)
    panels = figure.subplots(1, len(study.groups), squeeze=False, sharey=True)[0]
    largest = max(abs(one.word.value - one.neutral) for one in study.results) or 1.0
    for axes, group in zip(panels, study.groups, strict=True):
        own = [one for one in study.results if one.group == group]
        values = [one.word.value - one.neutral for one in own]
        rows = [values[i : i + study.heads] for i in range(0, len(values), study.heads)]
        axes.imshow(
            rows, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", origin="lower",
            extent=(-0.5, study.heads - 0.5, 0.5, study.layers + 0.5),
        )  # fmt: skip
        if named := [one.head for one in own if one.found]:
            axes.scatter([h.head for h in named], [h.layer for h in named], s=7, color=INK, linewidths=0)
        axes.set(title=group, xlabel="head")
        axes.locator_params(integer=True)
    panels[0].set_ylabel("layer")
    figure.colorbar(panels[0].images[0], ax=panels, label="share on word less neutral")
    return figure


def _counts(study: HeadStudy) -> Table:
    head = ("group", "heads found", "heads with less", "share of excess in the strongest twentieth")
    rows = [
        [
            Cell(group),
            Cell(f"{one.found} of {one.heads}"),
            Cell(str(one.fewer)),
            Cell(f"{100 * one.top:.0f} %"),
        ]
        for group, one in study.concentration.items()
    ]
    return Table(head, rows)


def _found(study: HeadStudy) -> Table | Text:
    strongest = study.strongest()
    if not strongest:
        return Text("No head attends to a group beyond neutral words and the rest of the prompt.")
    head = ("head", "group", "on word", "neutral", "elsewhere", "g", "q", "d over elsewhere", "its q")
    return Table(head, [_row(one) for one in strongest])


def _row(one: HeadResult) -> list[Cell]:
    plain = [Cell(f"{100 * share:.2f} %") for share in (one.neutral, one.elsewhere)]
    tests = (number(one.effect), number(one.q, 4), number(one.over_controls), number(one.over_q, 4))
    return [Cell(str(one.head)), Cell(one.group), percent(one.word), *plain, *tests]


def _scaled(found: AblationResult) -> Table:
    named = f"{', '.join(map(str, found.heads))} times {found.factor:g}"
    rows = [_measure("accuracy", found.accuracy, found.scaled.accuracy, found.scaled.accuracy_change)]
    rows[0].append(_random([one.accuracy_change for one in found.random]))
    for group, before in found.effect.items():
        row = _measure(
            f"effect of {group}", before, found.scaled.effect[group], found.scaled.effect_change[group]
        )
        rows.append([*row, _random([one.effect_change[group] for one in found.random])])
    return Table((named, "before", "after", "change", "change by random heads"), rows)


def _measure(name: str, *values: Estimate) -> list[Cell]:
    before, after, change = values
    return [Cell(name), percent(before), percent(after), points(change)]


def _random(changes: list[Estimate]) -> Cell:
    return Cell(", ".join(f"{100 * one.value:+.1f}" for one in changes) or "–")


def _settings(study: HeadStudy) -> Table:
    rows = [[Cell(f"words: {group}"), Cell(", ".join(words))] for group, words in study.words.items()]
    rows += [[Cell("template"), Cell(text)] for text in study.templates]
    return Table(("setting", "value"), [*rows, [Cell("form"), Cell(study.form)]])


def _rejected(study: HeadStudy) -> Table | Text:
    if not study.rejected:
        return Text("No word was left out.")
    return Table(("left out", "why"), [[Cell(word), Cell(why)] for word, why in study.rejected.items()])
