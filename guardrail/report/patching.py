"""The report of activation patching: effects by layer with intervals, heat maps, heads, pairs and rejects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from guardrail.engines.transformers.activations import Component
from guardrail.interpret.patching.patches import PARTS, SCOPES, Patch, positions
from guardrail.interpret.patching.results import PatchResult
from guardrail.report import interpret_leads
from guardrail.report.drawing import CYCLE, new, style, svg
from guardrail.report.leads import few
from guardrail.report.page import Block, Cell, Drawn, Heading, Page, Section, Table, Text, estimate
from guardrail.statistics.intervals import Estimate

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


def _effects(found: PatchResult, way: str) -> list[Block]:
    blocks: list[Block] = []
    components: tuple[Component, ...] = ("resid", *PARTS)
    for component in components:
        curves = {where: found.layer(component, where, way) for where in SCOPES}
        blocks += _curves(f"{NAMES[component]}: effect by layer", curves)
        blocks += _heat(found, component, way)
    for part in PARTS:
        direct = found.layer(part, "last", way, direct=True)
        blocks += _curves(
            f"{NAMES[part]}, all tokens: direct and indirect",
            {"direct": direct, "indirect": found.indirect(part, way)},
        )
        windows = {where: found.windows(part, where, way) for where in ("identity", "all")}
        blocks += _curves(f"{NAMES[part]}: {found.about.window} layers together, by the first", windows)
    return [*blocks, *_heads(found, way)]


def _curves(title: str, curves: Mapping[str, Mapping[int, Estimate]]) -> list[Block]:
    known = {name: curve for name, curve in curves.items() if curve}
    if not known:
        return []
    with style():
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
        return [Drawn(svg(figure, title))]


def _heat(found: PatchResult, component: Component, way: str) -> list[Block]:
    columns = {where: found.layer(component, where, way) for where in positions(found.about.near)}
    known = {where: curve for where, curve in columns.items() if curve}
    if len(known) < 3:
        return []
    layers = list(next(iter(known.values())))
    values = [[curve[n].value if n in curve else np.nan for curve in known.values()] for n in layers]
    title = f"{NAMES[component]}: effect by layer and token"
    return [Drawn(_map(title, [str(n) for n in layers], list(known), values, "token"))]


def _map(
    title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], x: str
) -> str:
    with style():
        figure = new(9.2, 1.4 + 0.16 * len(rows))
        axes = figure.subplots()
        image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")  # pyright: ignore[reportArgumentType]
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(title=title, xlabel=x, ylabel="layer")
        figure.colorbar(image, ax=axes, label="effect")
        return svg(figure, title)


def _heads(found: PatchResult, way: str) -> list[Block]:
    about = found.about
    made = [patch for patch in about.patches if patch.component == "heads" and patch.where == "all"]
    effects = {patch: effect for patch in made if (effect := found.mean(patch, way))}
    if not effects:
        return []
    by_place = {(patch.layers[0], patch.head): effect.value for patch, effect in effects.items()}
    layers = range(1, about.layers + 1)
    values = [[by_place.get((n, head), np.nan) for head in range(about.heads)] for n in layers]
    picture = _map(
        "Heads: effect at all tokens",
        [str(n) for n in layers],
        [str(h) for h in range(about.heads)],
        values,
        "head",
    )
    strongest = sorted(effects, key=lambda patch: -abs(effects[patch].value))[:SHOWN]
    rows = [_head_row(found, patch, effects[patch], way) for patch in strongest]
    return [Drawn(picture), Table(("layer", "head", "all tokens", "last token"), rows)]


def _head_row(found: PatchResult, patch: Patch, effect: Estimate, way: str) -> list[Cell]:
    last = found.mean(Patch(patch.layers, "heads", "last", patch.head), way)
    return [Cell(str(patch.layers[0])), Cell(str(patch.head)), estimate(effect), estimate(last)]
