"""The report of `guardrail vectors layers`: every layer's measurements, and why one was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.report import leads
from guardrail.report.drawing import BLUE, CYCLE, GREY, new, style, svg
from guardrail.report.page import Block, Cell, Drawn, Page, Section, Table, Text, spanned
from guardrail.statistics.nulls import chance
from guardrail.vectors.provenance import LayerChoice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_PROMPTS = 40
MEANING = (
    "AUROC and d': how well each layer's probe separates prompts that ask for the trait from prompts that "
    "forbid it, with 95 % intervals (prompts resampled; those that share a question or an instruction are "
    "not independent, so the intervals are rather too narrow). Chance: what the best AUROC of all layers "
    "stays below in 95 % of draws with shuffled labels. As good: the interval reaches the chosen layer's "
    "value. Trait and coherence: mean judged scores, 0 to 100, of replies to plain questions with the vector "
    "added at this layer alone. Induce and ablation: log-odds of the trait; KL: nats."
)
Measure = Callable[[Candidate], float | None]
PANELS: Sequence[tuple[str, Sequence[tuple[str, Measure]]]] = (
    ("judged scores", (("trait", lambda c: c.trait), ("coherence", lambda c: c.coherence))),
    ("log-odds of the trait", (("induced", lambda c: c.induce), ("ablated", lambda c: c.ablation))),
    ("KL of ablation", (("KL", lambda c: c.kl),)),
)


def page(sweeps: Sequence[Sweep], choices: Mapping[str, LayerChoice], failed: Mapping[str, str]) -> Page:
    """The whole report."""
    return Page(
        title=f"Layers for {leads.several([sweep.trait for sweep in sweeps])}",
        subtitle="; ".join(dict.fromkeys(map(_origin, sweeps))),
        sections=[
            Section("Choice", [_summary(sweeps, choices, failed), Text(MEANING)]),
            *(Section(sweep.trait, _trait(sweep, choices.get(sweep.trait))) for sweep in sweeps),
        ],
        notes=[*_few(sweeps), *failed.values()],
        lead=leads.layers(sweeps, choices),
    )


def _origin(sweep: Sweep) -> str:
    judged = f", judge {sweep.judge}, {sweep.replies} replies a layer" if sweep.judge else ""
    return f"{sweep.layers} layers, measured by {sweep.origin}{judged}"


def _few(sweeps: Sequence[Sweep]) -> list[str]:
    found = [sweep.separation for sweep in sweeps if sweep.separation]
    fewest = min((min(one.asking, one.forbidding) for one in found), default=0)
    replies = min((sweep.replies for sweep in sweeps if sweep.replies), default=0)
    told = f"Judged scores are means of {replies} replies a layer; only the trait's has an interval."
    return [*leads.few([("prompts on a side", fewest)], FEW_PROMPTS), *([told] if replies else [])]


def _summary(sweeps: Sequence[Sweep], choices: Mapping[str, LayerChoice], failed: Mapping[str, str]) -> Table:
    head = ("trait", "layer", "by", "AUROC there", "best of chance", "verdict", "why")
    return Table(head, [_chosen(sweep, choices.get(sweep.trait), failed) for sweep in sweeps])


def _chosen(sweep: Sweep, choice: LayerChoice | None, failed: Mapping[str, str]) -> list[Cell]:
    null = sweep.separation.null if sweep.separation else None
    missed = Cell("–") if null is None else Cell(f"{null.high:.3f}", chance(null))
    if choice is None:
        why = failed.get(sweep.trait, "")
        return [Cell(sweep.trait), Cell("none", tone="bad"), *[Cell("–")] * 2, missed, Cell("–"), Cell(why)]
    verdict = leads.separates(sweep, choice)
    place = f"position {choice.position}" if choice.position is not None else ""
    return [
        *(Cell(sweep.trait), Cell(str(choice.layer), place), Cell(choice.selector)),
        *(_area(leads.candidate(sweep, choice)), missed),
        *(Cell(verdict, tone=leads.tone_of(verdict)), Cell(choice.rule)),
    ]


def _area(one: Candidate | None) -> Cell:
    return spanned(one.auroc, one.auroc_interval, 3) if one else Cell("–")


# --- one trait ----------------------------------------------------------------------------------------


def _trait(sweep: Sweep, choice: LayerChoice | None) -> list[Block]:
    told = f"Layer {choice.layer}: {choice.rule}." if choice else "No layer was chosen."
    if sweep.separation:
        told += f" {sweep.separation.asking} prompts ask for it, {sweep.separation.forbidding} forbid it."
    return [Text(told), Drawn(_drawn(sweep, choice)), _table(sweep, choice)]


def _table(sweep: Sweep, choice: LayerChoice | None) -> Table:
    known = [(name, measure) for _, lines in PANELS for name, measure in lines if _has(sweep, measure)]
    baseline = [sweep.baseline] if sweep.baseline else []
    rows = [
        [
            *(_place(one), _area(one), spanned(one.d_prime, None)),
            *(_judged(name, one, measure) for name, measure in known),
            _verdict(sweep, one, choice),
        ]
        for one in (*baseline, *sweep.candidates)
    ]
    return Table(("layer", "AUROC", "d'", *(name for name, _ in known), ""), rows)


def _judged(name: str, one: Candidate, measure: Measure) -> Cell:
    return spanned(measure(one), one.trait_interval if name == "trait" else None)


def _has(sweep: Sweep, measure: Measure) -> bool:
    return any(measure(one) is not None for one in sweep.candidates)


def _place(one: Candidate) -> Cell:
    return Cell(str(one.layer) if one.layer else "none", "" if one.position is None else f"at {one.position}")


def _verdict(sweep: Sweep, one: Candidate, choice: LayerChoice | None) -> Cell:
    if choice is None or not one.layer:
        return Cell("")
    if (one.layer, one.position) == (choice.layer, choice.position):
        return Cell("chosen", tone="good")
    best = leads.candidate(sweep, choice)
    if choice.selector != "separation" or one.auroc_interval is None or best is None or best.auroc is None:
        return Cell("")
    return Cell("as good" if one.auroc_interval[1] >= best.auroc else "")


# --- the figure ---------------------------------------------------------------------------------------


def _drawn(sweep: Sweep, choice: LayerChoice | None) -> str:
    parts = [(title, [line for line in lines if _has(sweep, line[1])]) for title, lines in PANELS]
    parts = [(title, lines) for title, lines in parts if lines]
    areas = _has(sweep, lambda c: c.auroc)
    count = max(1, len(parts) + areas)
    with style():
        figure = new(9.2 if count > 1 else 6.4, 2.9)
        panels = list(figure.subplots(1, count, squeeze=False)[0])
        if areas:
            _separation(panels.pop(0), sweep)
        for axes, (title, lines) in zip(panels, parts, strict=False):
            _lines(axes, sweep, title, lines)
        for axes in figure.axes:
            axes.set(xlabel="layer")
            axes.locator_params(axis="x", integer=True)
            if choice:
                axes.axvline(choice.layer, color=GREY, linewidth=1, linestyle=":")
        return svg(figure, f"{sweep.trait}: measurements by layer; dotted: the layer that was chosen")


def _separation(axes: Axes, sweep: Sweep) -> None:
    known = [one for one in sweep.candidates if one.auroc is not None]
    layers = [one.layer for one in known]
    axes.plot(layers, [one.auroc or 0.0 for one in known], "o-", color=BLUE, markersize=3)
    spans = [(one.layer, *one.auroc_interval) for one in known if one.auroc_interval]
    if spans:
        at, low, high = zip(*spans, strict=True)
        axes.fill_between(at, low, high, color=BLUE, alpha=0.2, linewidth=0)
    if sweep.separation:
        axes.axhline(sweep.separation.null.high, color=GREY, linewidth=1, linestyle="--")
    axes.set(title="AUROC (dashed: chance)")


def _lines(axes: Axes, sweep: Sweep, title: str, lines: Sequence[tuple[str, Measure]]) -> None:
    """One line for each measure, and for each position if the sweep compares several."""
    places = sorted({one.position for one in sweep.candidates}, key=lambda at: at or 0)
    drawn = [(name, measure, at) for name, measure in lines for at in places]
    for i, (name, measure, at) in enumerate(drawn):
        there = [one for one in sweep.candidates if one.position == at]
        known = [(one.layer, value) for one in there if (value := measure(one)) is not None]
        label = name if at is None else f"{name} at {at}"
        axes.plot(*zip(*known, strict=True), "o-", color=CYCLE[i % len(CYCLE)], markersize=3, label=label)
    axes.set(title=title)
    if len(drawn) > 1:
        axes.legend()
