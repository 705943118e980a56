"""What `guardrail train shift` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import interval, print_table, print_wide

if TYPE_CHECKING:
    from guardrail.train.shift import Prediction, Shift, TraitShift

HEAD = ("trait", "layer", "prompts", "shift", "in SDs", "of asked (%)", "own", "not told from")


def print_shift(found: Sequence[Shift], predicted: Sequence[Mapping[str, Prediction]]) -> None:
    """Print one table per finetune, after one of all if there are several."""
    if len(found) > 1:
        _print_course(found)
    for one, scores in zip(found, predicted, strict=True):
        _print_one(one, scores)


def _print_course(found: Sequence[Shift]) -> None:
    """One line per checkpoint, in standard deviations of the base."""
    traits = list(found[0].traits)
    rows = [(one.tuned, *(one.traits[trait].chosen.deviations for trait in traits)) for one in found]
    print_wide(("finetune", *traits), rows, "\nshift by trait, in standard deviations of the base")


def _print_one(found: Shift, predicted: Mapping[str, Prediction]) -> None:
    from guardrail.train.shift.wording import findings

    typer.echo(f"\n{found.tuned} since {found.since}: {descent(found)}; 95 % intervals")
    print_table(HEAD, [_row(one) for one in found.traits.values()])
    for line in findings(found, predicted):
        typer.echo(line)
    for text in found.notes:
        typer.echo(f"note: {text}")


def descent(found: Shift) -> str:
    """How a finetune differs from its base."""
    one = found.descent
    if one.changed is None:
        return f"{one.kind} of {found.base}"
    return f"{one.kind}, moved by {100 * one.changed:.2g} % of their length"


def _row(one: TraitShift) -> tuple[object, ...]:
    at = one.chosen
    return (
        *(one.trait, one.layer, one.prompts, interval(at.shift, ".3g")),
        *(at.deviations, None if at.of_asked is None else 100 * at.of_asked),
        *(interval(at.own, ".3g"), ", ".join(one.confused_with)),
    )
