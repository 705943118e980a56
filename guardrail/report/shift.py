"""The report of `guardrail train shift`: every trait of every finetune, with intervals and entanglement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from guardrail.report import leads
from guardrail.report.drawing import BLUE, CYCLE, GREY, ORANGE, matrix, new, style, svg
from guardrail.report.page import Block, Cell, Drawn, Heading, Page, Section, Table, Text, estimate
from guardrail.statistics.intervals import Estimate
from guardrail.train.shift import Prediction, Shift, TraitShift
from guardrail.train.shift.wording import findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ("trait", "layer", "prompts", "shift", "in SDs", "of asked (%)", "own", "not told from", "predicted")
MEANING = (
    "Shift: the mean difference between the states of the finetune and those of the base at the last prompt "
    "token, along the base's unit vector of the trait. In SDs: divided by the standard deviation of the "
    "base over the same prompts. Of asked: as a share of what system prompts that ask for the trait do to "
    "the base. Own: what remains once what the other traits did is taken out. Not told from: traits that "
    "explain half of the shift or more, or may. Intervals: 95 %, prompts resampled."
)
MIXED = (
    "How far the trait in a row moves if the one in the column moves by 1, in the base that is asked for "
    "the latter (or the cosine of the vectors, where no definition says how to ask). At the row's layer."
)


def page(found: Sequence[Shift], predicted: Sequence[Mapping[str, Prediction]]) -> Page:
    """The whole report."""
    first = found[0]
    sections = [_course(found)] if len(found) > 1 else []
    sections += [_finetune(one, scores) for one, scores in zip(found, predicted, strict=True)]
    return Page(
        title=f"Shift of finetunes of {first.base}",
        subtitle=f"vectors {first.vectors_sha256[:12]}; prompts {first.prompts_sha256[:12]}",
        sections=[*sections, _mixing(first)],
        notes=[*_few(found), *dict.fromkeys(note for one in found for note in one.notes)],
        lead=leads.shift(found),
    )


def _few(found: Sequence[Shift]) -> list[str]:
    fewest = min((one.prompts for shift in found for one in shift.traits.values()), default=0)
    return leads.few([("prompts", fewest)], 50)


def _course(found: Sequence[Shift]) -> Section:
    return Section("Course", [Drawn(_lines(found), "Bands: 95 % intervals.")])


def _lines(found: Sequence[Shift]) -> str:
    with style():
        figure = new(9.2, 3.4)
        axes = figure.subplots()
        places = list(range(len(found)))
        for i, trait in enumerate(found[0].traits):
            known = [_deviations(one.traits[trait]) for one in found]
            colour = CYCLE[i % len(CYCLE)]
            axes.plot(places, [one.value for one in known], "o-", color=colour, label=trait, markersize=3)
            low, high = [one.low for one in known], [one.high for one in known]
            axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xticks(places, [_last(one.tuned) for one in found], rotation=20, ha="right")
        axes.set(title="shift by finetune", ylabel="SDs of the base")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure, "shift of every trait by finetune")


def _short(value: float | None) -> Cell:
    """To two digits, however small: a shift that was shown is not 0."""
    return Cell("–" if value is None else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}")


def _deviations(one: TraitShift) -> Estimate:
    """The shift in standard deviations; unscaled if the base does not vary."""
    at = one.chosen
    unit = at.spread or 1.0
    return Estimate(at.shift.value / unit, at.shift.low / unit, at.shift.high / unit)


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _finetune(found: Shift, predicted: Mapping[str, Prediction]) -> Section:
    return Section(f"{_last(found.tuned)} since {_last(found.since)}", details(found, predicted))


def details(found: Shift, predicted: Mapping[str, Prediction]) -> list[Block]:
    """One finetune: what moved in words, figures and numbers."""
    blocks: list[Block] = [Text(line) for line in findings(found, predicted)]
    rows = [_row(one, predicted.get(one.trait)) for one in found.traits.values()]
    blocks += [Drawn(_bars(found)), Table(HEAD, rows), Text(MEANING)]
    return [*blocks, Heading("By layer"), Drawn(_layers(found), "Dots: the layers that are quoted.")]


def _row(one: TraitShift, predicted: Prediction | None) -> list[Cell]:
    at, mixed = one.chosen, ", ".join(one.confused_with)
    share = None if at.of_asked is None else 100 * at.of_asked
    return [
        *(Cell(one.trait), Cell(str(one.layer)), Cell(str(one.prompts)), estimate(at.shift, 2)),
        *(_short(at.deviations), _short(share), estimate(at.own, 2)),
        *(Cell(mixed, tone="bad" if mixed else ""), estimate(predicted.score if predicted else None, 0)),
    ]


def _bar(axes: Axes, at: float, value: Estimate | None, colour: str) -> None:
    if value is not None:
        axes.plot((value.low, value.high), (at, at), color=colour, linewidth=2)
        axes.plot(value.value, at, "o", color=colour, markersize=4)


def _bars(found: Shift) -> str:
    names = list(found.traits)
    with style():
        figure = new(9.2, 0.9 + 0.42 * len(names))
        axes = figure.subplots()
        for i, one in enumerate(found.traits.values()):
            _bar(axes, i - 0.12, one.chosen.shift, BLUE)
            _bar(axes, i + 0.12, one.chosen.own, ORANGE)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(title="shift (blue), and what is the trait's own (orange)", xlabel="units of activations")
        return svg(figure, "shift of every trait, with what is its own")


def _layers(found: Shift) -> str:
    with style():
        figure = new(9.2, 3.0)
        axes = figure.subplots()
        for i, (name, one) in enumerate(found.traits.items()):
            colour = CYCLE[i % len(CYCLE)]
            x, y = [at.layer for at in one.layers], [at.shift.value for at in one.layers]
            axes.plot(x, y, color=colour, label=name, linewidth=1.5)
            axes.plot(one.layer, one.chosen.shift.value, "o", color=colour, markersize=5)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.locator_params(axis="x", integer=True)
        axes.set(title="shift by layer", xlabel="layer", ylabel="units of activations")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure, "shift of every trait by layer")


def _mixing(found: Shift) -> Section:
    rows = list(found.traits)
    columns = list(dict.fromkeys(o.other for one in found.traits.values() for o in one.overlaps))
    columns = [*(name for name in rows if name in columns), *(name for name in columns if name not in rows)]
    if not columns:
        return Section("Entanglement", [Text("The vector file has one trait.")])
    ratios = [_ratios(one, columns) for one in found.traits.values()]
    with style():
        figure = new(min(9.2, 3 + 0.8 * len(columns)), 1.4 + 0.36 * len(rows))
        axes = figure.subplots()
        matrix(axes, rows, columns, ratios, colours="RdBu_r", low=-1, high=1)
        axes.set(title="moves with")
        drawn = svg(figure, "how far each trait moves with each other trait")
    return Section("Entanglement", [Text(MIXED), Drawn(drawn)])


def _ratios(one: TraitShift, columns: Sequence[str]) -> list[float]:
    known = {overlap.other: overlap.ratio for overlap in one.overlaps}
    return [known.get(name, float("nan")) for name in columns]
