"""The report of activation patching: effects by layer with intervals, heat maps, heads, pairs and rejects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from guardrail.engines.transformers.activations import Component
from guardrail.interpret.patching.patches import PARTS, SCOPES, Patch, positions
from guardrail.interpret.patching.results import HEAD_TOKENS, PatchResult
from guardrail.report import interpret_leads
from guardrail.report.drawing import CYCLE, Named, new, style, svg
from guardrail.report.leads import few
from guardrail.report.page import Block, Cell, Drawn, Heading, Page, Section, Table, Text, estimate
from guardrail.statistics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"resid": "residual stream", "mlp": "MLP", "attn": "attention", "heads": "heads"}
FEW_PAIRS = 50
SHOWN = 12
"""How many heads the table lists."""
MEANING = (
    "0: the run answers as before; 1: it answers as the run that the values come from. Denoising puts the "
    "source's values into the target's run (what suffices), noising the other way round (what is needed). "
    "Intervals: bootstrap over pairs, 95 %. A direct effect keeps all later outputs at the last token; the "
    "final norm is computed anew."
)


def patch_page(found: PatchResult) -> Page:
    """The whole report."""
    about = found.about
    sections = [Section("Pairs", _pairs(found))]
    sections += [Section(way.capitalize(), _effects(found, way)) for way in about.directions if about.pairs]
    counts = f"{len(about.pairs)} pairs, {len(about.rejects)} left out, {len(about.patches)} patches each"
    subtitle = f"{about.model}: {counts}"
    return Page(
        title="Activation patching",
        subtitle=subtitle,
        sections=sections,
        notes=(*about.notes, *few([("pairs", len(about.pairs))], FEW_PAIRS), MEANING),
        lead=interpret_leads.patching(found),
    )


def _pairs(found: PatchResult) -> list[Block]:
    about = found.about
    rows = [
        [Cell(p.name), Cell(repr(p.source)), Cell(repr(p.target)), Cell(f"{p.gap:.2f}"), Cell(str(p.tokens))]
        for p in about.pairs
    ]
    left = [[Cell(one.name), Cell(one.reason), Cell(one.detail)] for one in about.rejects]
    asked = f"form: {about.form}; window: {about.window} layers; near: {about.near} tokens"
    settings = f"{asked}; weights: {about.fingerprint.weights}"
    blocks: list[Block] = [
        Text(settings),
        Table(("pair", "source", "target", "gap (logits)", "tokens"), rows),
    ]
    return [*blocks, Heading("Left out"), Table(("pair", "reason", "details"), left)] if left else blocks


def figures(found: PatchResult) -> Iterator[Named]:
    """Every figure of the page."""
    for way in found.about.directions if found.about.pairs else ():
        yield from _drawn(found, way)


def _effects(found: PatchResult, way: str) -> list[Block]:
    with style():
        drawn: list[Block] = [Drawn(svg(figure, title)) for title, figure in _drawn(found, way)]
    return [*drawn, *_strongest(found, way)]


def _drawn(found: PatchResult, way: str) -> Iterator[Named]:
    components: tuple[Component, ...] = ("resid", *PARTS)
    for component in components:
        curves = {where: found.layer(component, where, way) for where in SCOPES}
        yield from _curves(f"{NAMES[component]}: effect by layer ({way})", curves)
        yield from _heat(found, component, way)
    for part in PARTS:
        direct = found.layer(part, "last", way, direct=True)
        indirect = found.indirect(part, way)
        title = f"{NAMES[part]}, all tokens: direct and indirect ({way})"
        yield from _curves(title, {"direct": direct, "indirect": indirect})
        windows = {where: found.windows(part, where, way) for where in ("identity", "all")}
        yield from _curves(f"{NAMES[part]}: {found.about.window} layers, by the first ({way})", windows)
    yield from _head_map(found, way)


def _curves(title: str, curves: Mapping[str, Mapping[int, Estimate]]) -> Iterator[Named]:
    """Effects by layer, with their intervals; nothing for a sweep that was not made."""
    if known := {name: curve for name, curve in curves.items() if curve}:
        figure = new(9.2, 2.6)
        axes = figure.subplots()
        for colour, (name, curve) in zip(CYCLE, known.items(), strict=False):
            layers = list(curve)
            axes.plot(layers, [one.value for one in curve.values()], color=colour, label=name, linewidth=1.6)
            low, high = ([getattr(one, end) for one in curve.values()] for end in ("low", "high"))
            axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.locator_params(axis="x", integer=True)
        axes.set(title=title, xlabel="layer", ylabel="effect")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        yield title, figure


def _heat(found: PatchResult, component: Component, way: str) -> Iterator[Named]:
    columns = {where: found.layer(component, where, way) for where in positions(found.about.near)}
    known = {where: curve for where, curve in columns.items() if curve}
    if len(known) > 2:
        layers = list(next(iter(known.values())))
        values = [[curve[n].value if n in curve else np.nan for curve in known.values()] for n in layers]
        title = f"{NAMES[component]}: effect by layer and token ({way})"
        yield title, _map(title, layers, list(known), values, "token")


def _map(
    title: str, layers: Sequence[int], columns: Sequence[str], values: Sequence[Sequence[float]], x: str
) -> Figure:
    figure = new(9.2, 1.4 + 0.16 * len(layers))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")  # pyright: ignore[reportArgumentType]
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set(title=title, xlabel=x, ylabel="layer")
    figure.colorbar(image, ax=axes, label="effect")
    return figure


def _head_map(found: PatchResult, way: str) -> Iterator[Named]:
    for where in found.head_tokens:
        effects = found.heads(where, way)
        by_place = {(patch.layers[0], patch.head): effect.value for patch, effect in effects.items()}
        layers, heads = range(1, found.about.layers + 1), range(found.about.heads)
        values = [[by_place.get((layer, head), np.nan) for head in heads] for layer in layers]
        title = f"heads: effect at {HEAD_TOKENS[where]} ({way})"
        yield title, _map(title, layers, [str(head) for head in heads], values, "head")


def _strongest(found: PatchResult, way: str) -> list[Block]:
    if not found.head_tokens:
        return []
    strongest = list(found.heads(found.head_tokens[0], way))[:SHOWN]
    head = ("layer", "head", *(HEAD_TOKENS[where] for where in found.head_tokens))
    return [Table(head, [_head_row(found, patch, way) for patch in strongest])]


def _head_row(found: PatchResult, patch: Patch, way: str) -> list[Cell]:
    each = (Patch(patch.layers, "heads", where, patch.head) for where in found.head_tokens)
    effects = [estimate(found.mean(one, way)) for one in each]
    return [Cell(str(patch.layers[0])), Cell(str(patch.head)), *effects]
