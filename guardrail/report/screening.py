"""The report of a screening: ranking, distributions, sources, worst rows with their texts, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby

import numpy as np

from guardrail.report import leads
from guardrail.report.drawing import BLUE, GREY, RED, new, style, svg
from guardrail.report.page import (
    Block,
    Cell,
    Drawn,
    Heading,
    Page,
    Section,
    Table,
    Text,
    estimate,
    number,
    percent,
)
from guardrail.statistics.intervals import Numbers
from guardrail.train.screening import Screened, Thresholds, ranking
from guardrail.train.screening.meter import FORMS
from guardrail.train.screening.showing import Shown

BINS = 60
LONGEST = 600
"""How many characters of a text are shown."""
EXAMPLES = 8
"""How many row numbers are shown of each kind of problem."""
EXPLAINED = (
    "A row's projection difference says how much further along a trait's direction its reply lies than the "
    "reply that the model would give itself. The mean over rows says how far training on the data would push "
    "the model along the trait."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One data set, and its worst rows by trait."""

    found: Screened
    shown: Mapping[str, Sequence[Shown]] = field(default_factory=dict[str, "Sequence[Shown]"])


def page(
    model: str, reported: Sequence[Reported], clean: Screened | None = None, limits: Thresholds | None = None
) -> Page:
    """The whole report."""
    first = reported[0].found
    layers = ", ".join(f"{one.trait} at layer {one.layer}" for one in first.directions)
    return Page(
        title=f"Screening of {', '.join(one.found.name for one in reported)}",
        subtitle=f"Model {model}; {layers}; form {first.form}; {datetime.now(UTC):%Y-%m-%d}. "
        "Intervals are 95 %.",
        sections=[
            _ranking([one.found for one in reported], limits),
            *([_limits(limits)] if limits else []),
            *[_data_set(one, clean, limits) for one in reported],
            _cost([*[one.found for one in reported], *([clean] if clean else [])]),
        ],
        notes=leads.few([(f"rows of {one.found.name}", one.found.counts.measured) for one in reported]),
        lead=leads.screening([one.found for one in reported], limits),
    )


def _ranking(found: Sequence[Screened], limits: Thresholds | None) -> Section:
    blocks: list[Block] = [Text(EXPLAINED)]
    for trait, places in ranking(found, limits).items():
        rows = [
            [
                Cell(one.name, "tied with the one above" if one.tied else ""),
                Cell(f"{one.rows:,}"),
                estimate(one.mean),
                percent(one.above),
            ]
            for one in places
        ]
        blocks += [Heading(trait), Table(("data", "rows", "mean difference", "above the threshold"), rows)]
    return Section("Ranking", blocks)


def _rule(limits: Thresholds) -> str:
    return (
        f"By the rule `{limits.rule}` on the {limits.clean_rows:,} rows of {limits.clean}: a share of "
        f"{limits.rate:.3g} of clean rows is above a trait's threshold. "
        f"All traits together reject {100 * limits.joint.value:.1f} % of them."
    )


def _limits(limits: Thresholds) -> Section:
    judged, text = any(one.judge is not None for one in limits.traits.values()), _rule(limits)
    rows = [
        [Cell(trait), number(one.difference, 3), number(one.judge, 1)] for trait, one in limits.traits.items()
    ]
    head = ("trait", "difference", "judge")
    if judged:
        text += " A row is rejected if its difference or its judged score is above its threshold."
        return Section("Thresholds", [Text(text), Table(head, rows)])
    return Section("Thresholds", [Text(text), Table(head[:2], [row[:2] for row in rows])])


def _data_set(one: Reported, clean: Screened | None, limits: Thresholds | None) -> Section:
    found = one.found
    blocks: list[Block] = [Text(_told(found, limits)), *_agreement(found)]
    blocks += [Drawn(_distribution(found, i, clean, limits)) for i in range(len(found.traits))]
    blocks += [*_sources(found), *_aside(found)]
    for trait, rows in one.shown.items():
        blocks += [Heading(f"{trait}: the highest rows")]
        for row in rows:
            blocks += _texts(row)
    return Section(found.name, blocks)


def _told(found: Screened, limits: Thresholds | None) -> str:
    counts = found.counts
    text = f"{counts.measured:,} rows were measured"
    text += f", a random subset of {found.subset:,}" if found.subset else ""
    text += f"; {sum(counts.aside.values()):,} were set aside"
    if limits and not found.subset:
        share = limits.rejected(found)
        text += f"; {100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}] are rejected"
    return text + "."


def _agreement(found: Screened) -> list[Block]:
    if not found.agreement:
        return []
    rows = [[Cell(trait), estimate(r)] for trait, r in found.agreement.items()]
    text = (
        "How well the cheap form, which takes the last prompt token in place of the model's own reply, "
        "follows the exact one over rows:"
    )
    return [Text(text), Table(("trait", "r"), rows)]


def _distribution(found: Screened, i: int, clean: Screened | None, limits: Thresholds | None) -> str:
    trait = found.traits[i]
    sets = [(found.name, found, BLUE), *([(clean.name, clean, GREY)] if clean else [])]
    edges = _edges([one for _, one, _ in sets], i)
    with style():
        figure = new(9.2, 2.4)
        axes = figure.subplots()
        for label, one, colour in sets:
            label = f"{label} ({one.counts.measured:,})"
            axes.stairs(_shares(one, i, edges), edges, fill=True, color=colour, alpha=0.5, label=label)
        if limits:
            axes.axvline(limits.traits[trait].difference, color=RED, linewidth=1.2, label="threshold")
        axes.set(title=f"{trait}: projection differences", xlabel="difference", ylabel="share of rows")
        axes.legend()
        return svg(figure, f"{trait}: histogram of projection differences")


def _edges(sets: Sequence[Screened], i: int) -> Numbers:
    found = [one.extent(i) for one in sets]
    known = [one for one in found if one is not None]
    low, high = (min(a for a, _ in known), max(b for _, b in known)) if known else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _shares(one: Screened, i: int, edges: Numbers) -> Numbers:
    """The share of rows in each bin, counted block by block."""
    blocks = one.store.columns(one.columns(one.form)[i])
    counts = sum((np.histogram(block[:, 0], edges)[0] for block in blocks), start=np.zeros(len(edges) - 1))
    return counts / max(1, counts.sum())


def _sources(found: Screened) -> list[Block]:
    rows = [
        [Cell(one.source or "(not said)"), Cell(f"{one.rows:,}"), *(number(v, 3) for v in one.means.values())]
        for one in found.by_source()
    ]
    if len(rows) < 2:
        return []
    return [Heading("Sources: mean differences"), Table(("source", "rows", *found.traits), rows)]


def _aside(found: Screened) -> list[Block]:
    counts = found.counts.aside
    if not counts:
        return []
    rows: list[Sequence[Cell]] = []
    for kind, problems in groupby(found.first_problems(EXAMPLES), key=lambda one: one[1]):
        own = list(problems)
        numbers = ", ".join(str(one[0]) for one in own) + (", ..." if counts[kind] > len(own) else "")
        rows.append([Cell(kind), Cell(f"{counts[kind]:,}"), Cell(numbers), Cell(_short(own[0][2], 100))])
    head = ("set aside", "rows", "numbers", "what is wrong with the first")
    return [Heading("Rows that could not be screened"), Table(head, rows)]


def _texts(row: Shown) -> list[Block]:
    worst = row.worst
    said = f" The judge gave it {worst.judged:.0f}." if worst.judged is not None else ""
    source = f", {worst.source}" if worst.source else ""
    texts = [
        Text(f"Row {worst.number}{source}: {worst.difference:.2f}.{said} Asked: {_short(row.asked)}"),
        Text(f"Reply: {_short(row.reply)}"),
    ]
    return [*texts, *([Text(f"The model itself: {_short(row.base)}")] if row.base is not None else [])]


def _short(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _cost(found: Sequence[Screened]) -> Section:
    rows = [
        [
            Cell(one.name),
            number(one.cost.seconds, 1),
            Cell(f"{one.cost.read_tokens:,}"),
            Cell(f"{one.cost.replies:,}"),
            Cell(f"{one.cost.reply_tokens:,}"),
            number(1000 * one.cost.seconds / max(1, one.counts.measured), 2),
        ]
        for one in found
    ]
    text = (
        "Replies that were generated for other data before are not generated again. "
        f"The forms are: {', '.join(FORMS)}; the second reads a row once and generates nothing."
    )
    head = ("data", "seconds", "tokens read", "replies generated", "their tokens", "ms a row")
    return Section("Cost", [Text(text), Table(head, rows)])
