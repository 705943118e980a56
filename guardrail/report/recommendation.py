"""The report of `guardrail interpret recommend`: layers by trait with their evidence, and the risk table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from guardrail.interpret.recommending.ranking import EVIDENCE, Layer, Recommendation
from guardrail.interpret.recommending.results import Recommended
from guardrail.interpret.recommending.risks import LEVEL, Risk, strongest
from guardrail.interpret.recommending.wording import NAMES, agreement, sentences
from guardrail.report import interpret_leads
from guardrail.report.drawing import CYCLE, GREY, INK, Named, new, style, svg
from guardrail.report.leads import few
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
    spanned,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20
"""Components in the table; the picture shows all."""
MEANING = (
    "Causal effect: at the last prompt token and the reply's first ones, the run without the trait gets the"
    " other run's projection on the trait vector; 0: it answers as before, 1: as the other one. Taken away:"
    " the other way round. AUROC: how well the probe separates prompts. Trait when steered: the judge's "
    "mean, 0 to 100, with the vector added at this layer. Each is divided by what it reaches at its best "
    "layer (AUROC above .5, the judge's mean above that without steering; nothing if the interval does not "
    "exclude that); a layer is as good as its weakest evidence. The current layer stays unless another is "
    "clearly better. Intervals: 95 %, over groups of prompts; of the judge's mean, over questions."
)
RISKS = (
    "Risk: the share of a trait's effect on the reply that comes with the values of one layer's attention, "
    "MLP or head alone, at the same tokens; 0 if chance is not excluded (sign permutation over groups of "
    "prompts, false-discovery rate 5 %). Shares do not add up, because components act on each other."
)


def recommendation_page(found: Recommended, diff: str) -> Page:
    """The whole report. diff: of the policy file; empty for none."""
    sections = [Section(one.trait, _trait(one)) for one in found.traits]
    sections.append(Section("How to read this", [Text(MEANING)]))
    sections.append(Section("Risk by layer and head", _risks(found)))
    if diff:
        sections.append(
            Section("Policy", [_diff(diff), Text("Calibrate again: thresholds are the old layers'.")])
        )
    return Page(
        title=f"Layers to watch: {found.model}",
        subtitle=f"{sum(one.contrasts for one in found.traits)} pairs of prompts",
        sections=sections,
        notes=few((f"pairs of prompts for {one.trait}", one.contrasts) for one in found.traits),
        lead=interpret_leads.recommended(found),
    )


def _trait(one: Recommendation) -> list[Block]:
    head = ("layer", "causal effect", "taken away", "AUROC", "trait when steered", "weakest evidence")
    rows = [_row(one, layer) for layer in one.layers]
    return [*_drawn([_curves(one)]), *(Text(text) for text in sentences(one)), Table(head, rows)]


def _row(one: Recommendation, layer: Layer) -> list[Cell]:
    mark = "recommended" if layer.layer == one.layer else "auto" if layer.layer == one.current else ""
    return [
        Cell(str(layer.layer), mark, "good" if layer.layer == one.layer else ""),
        estimate(layer.sufficient, 2),
        estimate(layer.needed, 2),
        number(layer.separation, 3),
        spanned(layer.steering, layer.steering_interval, 1),
        number(layer.weakest),
    ]


def figures(found: Recommended) -> Iterator[Named]:
    """Every figure of the page."""
    for one in found.traits:
        yield _curves(one)
    yield from _maps(found)


def _drawn(made: Iterable[Named]) -> list[Block]:
    with style():
        return [Drawn(svg(figure, title)) for title, figure in made]


def _curves(one: Recommendation) -> Named:
    """Each evidence as a share of its best layer."""
    figure = new(9.2, 2.6)
    axes = figure.subplots()
    layers = [layer.layer for layer in one.layers]
    for colour, name in zip(CYCLE, EVIDENCE, strict=False):
        if name in one.best:
            shares = [layer.shares[name] for layer in one.layers]
            axes.plot(layers, shares, color=colour, label=NAMES[name], linewidth=1.6)
    weakest = [layer.weakest for layer in one.layers]
    axes.fill_between(layers, 0, weakest, color=GREY, alpha=0.25, linewidth=0, label="weakest")
    if one.layer is not None:
        axes.axvline(one.layer, color=INK, linewidth=0.8, linestyle=":")
    axes.locator_params(axis="x", integer=True)
    axes.set(
        title=f"{one.trait}: {agreement(one)}", xlabel="layer", ylabel="share of the best", ylim=(0, 1.03)
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return f"{one.trait}: evidence by layer, as a share of each one's best layer", figure


def _risks(found: Recommended) -> list[Block]:
    traits = list(found.risks[0].traits) if found.risks else []
    blocks: list[Block] = [Text(RISKS), *_drawn(_maps(found))]
    shown = strongest(found.risks, SHOWN)
    if not shown:
        return [*blocks, Text("No component is shown to carry a trait on its own.")]
    rows = [[Cell(one.name), number(one.risk), *(_effect(one, trait) for trait in traits)] for one in shown]
    return [*blocks, Heading("Highest risks"), Table(("component", "risk", *traits), rows)]


def _effect(one: Risk, trait: str) -> Cell:
    found = one.traits[trait]
    return Cell(f"{found.effect:.2f}", f"adjusted p {found.q:.2g}", "warn" if found.risk else "")


def _maps(found: Recommended) -> Iterator[Named]:
    for trait in found.risks[0].traits if found.risks else ():
        yield f"{trait}: effect on replies by layer and component", _map(found.risks, trait)


def _map(risks: Sequence[Risk], trait: str) -> Figure:
    """Effects by layer: MLP, attention, then every head."""
    names = list(dict.fromkeys(_column(one) for one in risks))
    layers = sorted({one.layer for one in risks})
    effects = {
        (one.layer, _column(one)): effect.effect for one in risks if (effect := one.traits[trait]).q < LEVEL
    }
    values = np.array([[effects.get((layer, name), np.nan) for name in names] for layer in layers])
    figure = new(9.2, 1.6 + 0.14 * len(layers))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", origin="lower")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set(
        title=f"{trait}: effect of one component (empty: no effect is shown)",
        xlabel="component (numbers: heads)",
        ylabel="layer",
    )
    figure.colorbar(image, ax=axes, label="effect")
    return figure


def _column(one: Risk) -> str:
    return one.component if one.head is None else str(one.head)


def _diff(diff: str) -> Table:
    return Table(("diff",), [[Cell(line)] for line in diff.splitlines()])
