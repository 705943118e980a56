"""`guardrail packs list | show`: installed vectors, calibrations and policies for known models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from guardrail.cli.console import number, print_json, print_table
from guardrail.cli.options import OutputOptions, add_group, takes_options
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.plugins.pack import Card, Pack


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    about = "List and show packs: ready vectors, calibrations and policies for known models."
    add_group(app, "packs", about, list=list_packs, show=show)


@takes_options
def list_packs(output: OutputOptions) -> None:
    """List the installed packs. `vectors: auto` in a policy file takes the one that fits the model."""
    from guardrail.plugins.packs import installed

    packs = installed()
    if output.as_json:
        print_json([_row(pack) for pack in packs])
    elif packs:
        _print_packs(packs)
    else:
        typer.echo("no packs are installed; a pack is a Python package, listed here once it is installed")


def _print_packs(packs: Sequence[Pack]) -> None:
    columns = ("pack", "version", "model", "traits", "policies", "certified on")
    print_table(columns, [_cells(pack) for pack in packs])
    for pack in packs:
        if pack.damage:
            typer.echo(pack.damage)


@takes_options
def show(name: Annotated[str, Argument(help="Name of an installed pack.")], *, output: OutputOptions) -> None:
    """Show the card of a pack: what it was made from, all numbers, its limits. Checks every file."""
    from guardrail.plugins.pack import TEXT
    from guardrail.plugins.packs import named

    pack = named(name)
    for file in pack.card.files:
        pack.file(file)
    if output.as_json:
        print_json(_row(pack) | {"card": asdict(pack.card), "folder": pack.folder})
        return
    typer.echo(f"{pack.name} {pack.version}, from {pack.distribution}: {pack.folder}")
    _print_card(pack.card)
    if TEXT in pack.card.files:
        typer.echo("\n" + pack.file(TEXT).read_text(encoding="utf-8"))


def _row(pack: Pack) -> dict[str, object]:
    whole = None if pack.damage else pack.card
    return {
        "pack": pack.name,
        "distribution": pack.distribution,
        "version": pack.version,
        "model": whole and whole.model,
        "certified_on": whole and whole.certified_on,
        "traits": whole and whole.traits,
        "policies": whole and whole.policies,
        "damage": pack.damage,
    }


def _cells(pack: Pack) -> tuple[str, ...]:
    if pack.damage:
        return (pack.name, pack.version, "damaged", "", "", "")
    card = pack.card
    lists = (", ".join(card.traits), ", ".join(card.policies))
    return (pack.name, pack.version, card.model, *lists, card.certified_on)


def _print_card(card: Card) -> None:
    typer.echo(f"model: {card.model}, licence {card.licence}")
    typer.echo(f"certified on: {card.certified_on}")
    typer.echo(f"traits: {', '.join(card.traits)}; policies: {', '.join(card.policies)}\n")
    rows = [(one.what, number(one.value), _interval(one.low, one.high), str(one.n)) for one in card.numbers]
    print_table(("measured", "value", "95 %", "n"), rows)
    for limit in card.limits:
        typer.echo(f"limit: {limit}")


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"
