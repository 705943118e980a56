"""Prints recommended layers, with the evidence for them, and the risk of components."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import interval, print_json, print_table

if TYPE_CHECKING:
    from guardrail.calibrate.policy_edit import PolicyEdit
    from guardrail.interpret.recommending.ranking import Layer, Recommendation
    from guardrail.interpret.recommending.results import Recommended
    from guardrail.interpret.recommending.risks import Risk

HEAD = ("layer", "causal effect", "taken away", "AUROC", "trait when steered", "weakest", "")
SHOWN = 12
"""Components that are printed; the report and --json have all."""


def print_recommended(
    found: Recommended, edit: PolicyEdit | None, written: Sequence[Path], *, done: bool, as_json: bool
) -> None:
    """Print everything, or JSON with the diff. done: whether the policy file was changed."""
    diff = edit.diff() if edit else None
    if as_json:
        print_json({**found.as_json(), "diff": diff})
        return
    from guardrail.interpret.recommending.wording import LEGEND

    for one in found.traits:
        _print_trait(one)
    typer.echo(f"\n{LEGEND}")
    _print_risks(found)
    if edit is not None:
        typer.echo(f"\n{diff or f'{edit.path}: nothing to change'}")
        if edit.changes:
            _print_next(edit, done)
    for path in written:
        typer.echo(f"\n{path}: written")


def _print_next(edit: PolicyEdit, done: bool) -> None:
    if not done:
        typer.echo("nothing was written; --write changes the file")
    typer.echo(
        "thresholds were found for the old layers; calibrate again: "
        f"guardrail calibrate --benign FILE --apply {edit.path} --write"
    )


def _print_trait(one: Recommendation) -> None:
    from guardrail.interpret.recommending.wording import sentences

    print_table(HEAD, [_row(one, layer) for layer in one.layers], f"\n{one.trait}")
    for sentence in sentences(one):
        typer.echo(sentence)


def _row(one: Recommendation, layer: Layer) -> tuple[object, ...]:
    from guardrail.interpret.recommending.wording import judged

    marks = ["recommended"] if layer.layer == one.layer else []
    marks += ["auto"] if layer.layer == one.current else []
    marks += [] if layer.coherent else ["incoherent when steered"]
    return (
        layer.layer,
        interval(layer.sufficient, ".2f"),
        interval(layer.needed, ".2f"),
        "" if layer.separation is None else f"{layer.separation:.3f}",
        "" if layer.steering is None else judged(layer.steering, layer.steering_interval),
        f"{layer.weakest:.2f}",
        ", ".join(marks),
    )


def _print_risks(found: Recommended) -> None:
    from guardrail.interpret.recommending.risks import strongest

    shown = strongest(found.risks, SHOWN)
    if not shown:
        typer.echo("\nno layer's attention, MLP or head is shown to carry a trait on its own")
        return
    names = list(shown[0].traits)
    print_table(
        ("component", "risk", *names),
        _risk_rows(shown, names),
        "\nrisk",
    )


def _risk_rows(shown: list[Risk], names: list[str]) -> Iterator[tuple[object, ...]]:
    for one in shown:
        yield (one.name, f"{one.risk:.2f}", *(f"{one.traits[name].risk:.2f}" for name in names))
