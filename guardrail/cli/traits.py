"""`guardrail traits list | show | author`: the traits that policies can name, and their definitions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from typer import Argument, Option

from guardrail.cli.console import print_json, print_table
from guardrail.cli.judges import endpoint_of
from guardrail.cli.options import EndpointOptions, OutputOptions, add_group, settings, takes_options
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.traits import TraitDefinition
    from guardrail.vectors.values import TraitVectors

NO_SYSTEM = "(no system prompt)"
VectorsFile: TypeAlias = Annotated[str, Option("--vectors", help="Vector file, or `demo`.")]


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    about = "List, show and define traits."
    add_group(app, "traits", about, list=list_traits, show=show, author=author)


@takes_options
def list_traits(vectors: VectorsFile = "demo", *, output: OutputOptions) -> None:
    """List the traits of a vector file, with the layer that `auto` means, and the built-in definitions."""
    from guardrail.cli.models import load_vectors

    rows = _listed(load_vectors(vectors))
    if output.as_json:
        keys = ("name", "layer", "vectors", "definition", "description")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    shown = [(name, layer, _yes(has), _yes(defined), text) for name, layer, has, defined, text in rows]
    print_table(("trait", "layer", "vectors", "definition", "description"), shown)


def _listed(vectors: TraitVectors) -> list[tuple[str, int | None, bool, bool, str]]:
    from guardrail.traits import builtin_traits, load_definition

    layers, defined = {name: vector.layer for name, vector in vectors.items()}, builtin_traits()
    return [
        (
            name,
            layers.get(name),
            name in layers,
            name in defined,
            load_definition(name).description if name in defined else "",
        )
        for name in dict.fromkeys([*layers, *defined])
    ]


def _yes(value: bool) -> str:
    return "yes" if value else ""


@takes_options
def show(
    trait: Annotated[str, Argument(help="Built-in definition, or a YAML or JSON file.")],
    output: OutputOptions,
) -> None:
    """Show one trait's definition: its instruction pairs, its questions and the judge's rubric."""
    from guardrail.traits import load_definition

    definition = load_definition(trait)
    if output.as_json:
        print_json(definition)
    else:
        _print_definition(definition)


def _asked(definition: TraitDefinition, question: str) -> str:
    other = definition.provoking.get(question)
    return question if other is None else f"{other}  |  {question}"


def _print_definition(definition: TraitDefinition) -> None:
    typer.echo(f"{definition.name}: {definition.description}")
    for i, pair in enumerate(definition.instructions, 1):
        role = f" ({definition.roles[i - 1]})" if definition.roles else ""
        sides = f"  positive: {pair.positive or NO_SYSTEM}\n  negative: {pair.negative or NO_SYSTEM}"
        typer.echo(f"\ninstruction pair {i}{role}\n{sides}")
    for title in ("extraction", "evaluation"):
        questions: tuple[str, ...] = tuple(_asked(definition, q) for q in getattr(definition, title))
        typer.echo("\n".join([f"\n{title} questions ({len(questions)}):", *(f"  {q}" for q in questions)]))
    typer.echo(f"\nrubric:\n{definition.rubric}\n\nsha256 {definition.sha256[:12]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorOptions:
    """What to define, and who writes it."""

    description: Annotated[str, Option(help="What the trait means, in one sentence.")]
    author_model: Annotated[str, Option(help="Model that writes the definition.")]
    language: Annotated[
        str | None, Option(help="Language to write in. Default: the language of --description.")
    ] = None
    out: Annotated[Path | None, Option(help="File to write, never overwritten. Default: NAME.yaml.")] = None
    rounds: Annotated[int, Option(min=1, help="Maximum attempts until an answer is good.")] = 3
    timeout_s: Annotated[float, Option("--timeout", min=1, help="Seconds to wait for one answer.")] = 300


@takes_options
def author(
    name: Annotated[str, Argument(help="Name of the new trait.")],
    given: AuthorOptions,
    service: EndpointOptions,
    output: OutputOptions,
) -> None:
    """Have a model write a definition from one sentence. It is checked, and repaired or refused."""
    path = given.out or Path(f"{name}.yaml")
    definition = _authored(name, path, given, service)
    if output.as_json:
        print_json({"file": path, "definition": definition})
    else:
        typer.echo(
            f"{path}: {_counted(definition)}; read it before you use it (guardrail traits show {path})"
        )


def _authored(name: str, path: Path, given: AuthorOptions, service: EndpointOptions) -> TraitDefinition:
    from guardrail.endpoint.client import Endpoint
    from guardrail.extract.author import dialogue

    commission = settings(dialogue.Commission, given, name=name, model=given.author_model)
    dialogue.check_commission(commission, path)
    with Endpoint(replace(endpoint_of(service), timeout_s=given.timeout_s)) as endpoint:
        written = dialogue.write_definition(endpoint, commission)
        origin = f"Written by {given.author_model} at {endpoint.url} from: {given.description}"
        return dialogue.store_definition(written, path, origin)


def _counted(definition: TraitDefinition) -> str:
    questions = f"{len(definition.extraction)} + {len(definition.evaluation)} questions"
    return f"{len(definition.instructions)} instruction pairs, {questions}, a rubric"
