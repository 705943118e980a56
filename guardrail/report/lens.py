"""The report of `guardrail interpret lens`: layers by tokens, hits by layer, S by share, for every model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from guardrail.interpret.lens.notes import notes
from guardrail.interpret.lens.picture import Picture
from guardrail.interpret.lens.prompts import CONDITIONS, Condition
from guardrail.interpret.lens.results import Gold, LensResult
from guardrail.report import interpret_leads
from guardrail.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, Named, new, style, svg
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
    percent,
)
from guardrail.statistics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANING = (
    "S adds up, over the last part of the layers, the probability of the likeliest token where it is the "
    "right one, weighted 1 for the first layer down to 1 / L for the last (Ozaki et al., NLP 2025). It grows "
    "with the share of layers by construction, and its bound with their number: compare it within a row, and "
    "the normalised S (by its bound) between rows. Right is the item's answer (dataset) or the model's own "
    "final token (own), about which the last layer is always right. With, without: the persona. Other: the "
    "persona of another item. Brackets: 95 % intervals, items resampled."
)
HEAD = (
    "persona",
    "right is",
    "layers",
    "S",
    "of at most",
    "normalised",
    "without last",
    "ascending",
    "hits",
    "first hit",
)
LONGEST = 24
"""Tokens of a picture, the last ones; more would be too small to read."""
COLOURS: dict[Condition, str] = {"with": BLUE, "without": ORANGE, "other": GREY}


def page(found: Sequence[LensResult], pictures: Sequence[Picture]) -> Page:
    """The whole report."""
    models = list(dict.fromkeys(one.model for one in found))
    return Page(
        title=f"Lens: {', '.join(models)}",
        subtitle="; ".join(dict.fromkeys(f"{one.task}: {one.items} items" for one in found)),
        sections=[
            Section("Overview", [_overview(found), Text(MEANING)]),
            *(Section(f"{one.model}: {one.task}, {one.lens} lens", list(_blocks(one))) for one in found),
            *(_picture(one) for one in pictures),
        ],
        notes=list(dict.fromkeys(_notes(found))),
        lead=interpret_leads.lens(found),
    )


def _notes(found: Sequence[LensResult]) -> Iterator[str]:
    yield from (note for one in found for note in notes(one))
    yield from few((f"items of {one.task}", one.items) for one in found)


def figures(found: Sequence[LensResult], pictures: Sequence[Picture]) -> Iterator[Named]:
    """Every figure of the page."""
    yield from ((f"tokens-{i}", layers_by_tokens(one)) for i, one in enumerate(pictures, 1))
    yield from ((f"{i:02}-{one.task}-{one.lens}", curves(one)) for i, one in enumerate(found, 1))


def _overview(found: Sequence[LensResult]) -> Table:
    head = (
        "task",
        "model",
        "lens",
        "answered with",
        "without",
        "other",
        "changed",
        "S, as the paper pairs",
        "same gold",
    )
    return Table(head, [_line(one) for one in found])


def _line(one: LensResult) -> list[Cell]:
    paper, same = (one.contrast("without", pairing).by_share[-1] for pairing in ("paper", "dataset"))
    accuracies = [percent(one.accuracy[c]) for c in CONDITIONS]
    named = [Cell(one.task), Cell(one.model), Cell(one.lens)]
    return [*named, *accuracies, percent(one.changed), estimate(paper), estimate(same)]


def _blocks(one: LensResult) -> Iterator[Block]:
    with style():
        yield Drawn(svg(curves(one), f"{one.task}: hits and S by layer"))
    yield Table(HEAD, list(_scores(one)))
    yield Heading("S with the persona less S otherwise")
    yield Table(("against", "right is", *_bands(one)), list(_contrasts(one)))
    yield Text("Each column: what that fifth of the layers adds, from the last upwards. " + _divergence(one))


def _scores(one: LensResult) -> Iterator[list[Cell]]:
    for measured in one.measured:
        for score in measured.scores:
            first = Cell("–") if score.first_hit is None else estimate(score.first_hit, 2)
            yield [
                *(Cell(measured.condition), Cell(measured.gold), Cell(f"last {100 * score.share:.0f} %")),
                *(estimate(score.mean), number(score.bound), estimate(score.normalised)),
                *(estimate(score.without_final), estimate(score.ascending), percent(score.hit_rate), first),
            ]


def _bands(one: LensResult) -> list[str]:
    shares = [round(100 * score.share) for score in one.measured[0].scores]
    return [f"{a} to {b} %" for a, b in zip([0, *shares], shares, strict=False)]


def _contrasts(one: LensResult) -> Iterator[list[Cell]]:
    for contrast in one.contrasts:
        yield [Cell(contrast.against), Cell(contrast.pairing), *map(estimate, contrast.by_band)]


def _divergence(one: LensResult) -> str:
    quarter = [one.divergence[max(1, round(one.layers * part)) - 1] for part in (0.25, 0.5, 0.75)]
    return (
        "KL of the model's output from the lens after a quarter, half and three quarters of the layers: "
        f"{', '.join(f'{value:.2f}' for value in quarter)} nats."
    )


def curves(one: LensResult) -> Figure:
    """Share of right answers at each layer, and normalised S over each share of layers."""
    figure = new(9.2, 3.2)
    left, right = figure.subplots(1, 2)
    for measured in one.measured:
        if measured.gold == "dataset":
            label = f"{measured.condition} persona"
            _line_with_band(
                left, range(1, one.layers + 1), measured.by_layer, label, COLOURS[measured.condition]
            )
    left.set(
        title="likeliest token is the item's answer",
        xlabel="layer",
        ylabel="share of items",
        ylim=(-0.02, 1.02),
    )
    pairs: tuple[tuple[Condition, Gold, str], ...] = (
        *(("with", "dataset", BLUE), ("without", "dataset", ORANGE)),
        *(("with", "own", GREEN), ("without", "own", PURPLE)),
    )
    for condition, gold, colour in pairs:
        scores = next(m for m in one.measured if (m.condition, m.gold) == (condition, gold)).scores
        shares = [100 * score.share for score in scores]
        _line_with_band(right, shares, [score.normalised for score in scores], f"{condition}, {gold}", colour)
    right.set(title="S by its bound", xlabel="last layers (%)")
    for axes in (left, right):
        axes.legend()
    return figure


def _line_with_band(
    axes: Axes, x: Sequence[float], values: Sequence[Estimate], label: str, colour: str
) -> None:
    axes.plot(x, [one.value for one in values], color=colour, label=label, linewidth=1.6)
    low, high = [one.low for one in values], [one.high for one in values]
    axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)


def layers_by_tokens(picture: Picture) -> Figure:
    """The likeliest token after every layer at every token, coloured by its probability."""
    shown, tokens = [row[-LONGEST:] for row in picture.shown], picture.tokens[-LONGEST:]
    values = [row[-LONGEST:] for row in picture.probabilities]
    figure = new(1.2 + 0.72 * len(tokens), 1.4 + 0.24 * len(values))
    axes = figure.subplots()
    drawn = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower")
    for layer, row in enumerate(shown):
        for place, text in enumerate(row):
            colour = "black" if values[layer][place] > 0.6 else "white"
            axes.text(
                place,
                layer,
                _visible(text),
                ha="center",
                va="center",
                fontsize=6,
                color=colour,
                parse_math=False,
            )
    axes.set_xticks(
        range(len(tokens)), [_visible(token) for token in tokens], rotation=40, ha="right", parse_math=False
    )
    axes.set_yticks(range(len(values)), [str(layer) for layer in range(1, len(values) + 1)], fontsize=6)
    axes.set(title=picture.model, xlabel="token read", ylabel="layer")
    figure.colorbar(drawn, label="probability", pad=0.01)
    return figure


def _visible(token: str) -> str:
    """A token as text of a font that has letters: white space is shown, other scripts are escaped."""
    shown = token.replace(" ", "␣").replace("\n", "↵") if token.isascii() else ascii(token)[1:-1]
    shown = "".join(c if c.isprintable() else "·" for c in shown)
    return shown if len(shown) <= 9 else f"{shown[:8]}…"


def _picture(picture: Picture) -> Section:
    cut = len(picture.tokens) - LONGEST
    caption = f"The first {cut} tokens are left out." if cut > 0 else ""
    with style():
        drawn = svg(layers_by_tokens(picture), "Likeliest token after every layer, at every token")
    return Section(f"Layers by tokens: {picture.model}", [Drawn(drawn, caption)])
