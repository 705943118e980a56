"""The steering section of a report: trade-off figures, and the strongest coherent ways to steer."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.evaluation.sweep import COHERENT, Point, SteeringSweep
from guardrail.report.page import Block, Cell, Drawn, Heading, Section, Table, Text, estimate, percent
from guardrail.report.steering import SPANS, trade_off

HEAD = ("way", "layers", "coefficient", "prompts", "trait", "coherence", "capability")


def steering_section(swept: SteeringSweep) -> Section:
    """A figure and a table per trait."""
    text = (
        f"{swept.replies} replies for each way of steering. Suppression is tried on prompts that ask for "
        "the trait, amplification on neutral ones; dashed lines are the unsteered model. For each operator "
        "and choice of layers, the tables show the way with the largest effect among those with a "
        f"coherence of {COHERENT:.0f} or more."
    )
    return Section(
        "Steering", [Text(text), *(block for trait in swept.traits for block in _trait(swept, trait))]
    )


def _trait(swept: SteeringSweep, trait: str) -> list[Block]:
    points = swept.of(trait)
    plain = [p for p in points if p.operator is None]
    rows = [_row(point) for point in (*plain, *strongest(points))]
    return [Heading(trait), Drawn(trade_off(swept, trait)), Table(HEAD, rows)]


def strongest(points: Sequence[Point]) -> list[Point]:
    """For each operator, span and kind of prompts, the coherent point that moves the trait most."""
    plain = {p.prompts: p.expression for p in points if p.operator is None}
    kinds = dict.fromkeys((p.operator, p.span, p.prompts) for p in points if p.operator)
    found: list[Point] = []
    for kind in kinds:
        own = [p for p in points if (p.operator, p.span, p.prompts) == kind and p.coherent and p.expression]
        if own:
            found.append(max(own, key=lambda p: _moved(p, plain)))
    return found


def _moved(point: Point, plain: dict) -> float:
    before = plain.get(point.prompts)
    if before is None or point.expression is None:
        return 0.0
    change = point.expression.value - before.value
    return change if point.prompts == "neutral" else -change


def _row(point: Point) -> list[Cell]:
    if point.operator is None:
        name, span, coefficient = "the model as it is", "", ""
    else:
        name, span = point.operator, SPANS[point.span or "single"]
        coefficient = f"{point.coefficient:g}"
    return [
        *(Cell(name), Cell(span), Cell(coefficient), Cell(point.prompts)),
        *(estimate(point.expression, 0), estimate(point.coherence, 0), percent(point.capability)),
    ]
