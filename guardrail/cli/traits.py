"""`guardrail traits list | show`: the traits that policies can name, and how they are defined."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from guardrail.cli.console import JsonFlag, print_json, print_table
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.vectors import TraitVectors

VectorsFile: TypeAlias = Annotated[str, typer.Option("--vectors", help="A vector file, or `demo`.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="List traits and show how they are defined.", no_args_is_help=True)
    group.command("list")(list_traits)
    group.command("show")(show)
    app.add_typer(group, name="traits")


def list_traits(vectors: VectorsFile = "demo", as_json: JsonFlag = False) -> None:
    """The traits of a vector file, with the layer that `auto` means."""
    from guardrail.demo.definitions import load_traits

    loaded, definitions = _vectors(vectors), load_traits()
    rows = [
        (name, vector.layer, definitions[name].description if name in definitions else "")
        for name, vector in loaded.items()
    ]
    if as_json:
        print_json([{"name": n, "layer": layer, "description": text} for n, layer, text in rows])
    else:
        print_table(("trait", "layer", "description"), rows)


def show(trait: Annotated[str, typer.Argument(help="A trait's name.")], as_json: JsonFlag = False) -> None:
    """One trait's definition: what asks for it, what forbids it, and the questions."""
    from guardrail.demo.definitions import load_traits
    from guardrail.problems import suggest

    definitions = load_traits()
    if trait not in definitions:
        raise ConfigError(f"unknown trait `{trait}`{suggest(trait, definitions)}")
    definition = definitions[trait]
    if as_json:
        print_json(definition)
        return
    typer.echo(f"{definition.name}: {definition.description}")
    for title in ("positive", "negative", "questions"):
        texts: tuple[str, ...] = getattr(definition, title)
        typer.echo(f"\n{title} ({len(texts)}):")
        for text in texts:
            typer.echo(f"  {text}")


def _vectors(name: str) -> TraitVectors:
    from guardrail.loading import resolve_vectors
    from guardrail.vectors import TraitVectors

    return TraitVectors.load(resolve_vectors(name, Path()))
