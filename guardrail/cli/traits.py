"""`guardrail traits list | show | author`: the traits that policies can name, and how they are defined."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from guardrail.cli.console import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from guardrail.traits import TraitDefinition
    from guardrail.vectors.values import TraitVectors

VectorsFile: TypeAlias = Annotated[str, typer.Option("--vectors", help="A vector file, or `demo`.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="List traits, show how they are defined, define new ones.", no_args_is_help=True)
    group.command("list")(list_traits)
    group.command("show")(show)
    group.command("author")(author)
    app.add_typer(group, name="traits")


def list_traits(vectors: VectorsFile = "demo", as_json: JsonFlag = False) -> None:
    """The traits of a vector file, with the layer that `auto` means, and the built-in definitions."""
    rows = _listed(_vectors(vectors))
    if as_json:
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


def show(
    trait: Annotated[str, typer.Argument(help="A built-in definition, or a YAML or JSON file.")],
    as_json: JsonFlag = False,
) -> None:
    """One trait's definition: what asks for it, what forbids it, the questions and the judge's rubric."""
    from guardrail.traits import load_definition

    definition = load_definition(trait)
    if as_json:
        print_json(definition)
    else:
        _print_definition(definition)


def _print_definition(definition: TraitDefinition) -> None:
    typer.echo(f"{definition.name}: {definition.description}")
    for i, pair in enumerate(definition.instructions, 1):
        typer.echo(f"\ninstruction pair {i}\n  positive: {pair.positive}\n  negative: {pair.negative}")
    for title in ("extraction", "evaluation"):
        questions: tuple[str, ...] = getattr(definition, title)
        typer.echo("\n".join([f"\n{title} questions ({len(questions)}):", *(f"  {q}" for q in questions)]))
    typer.echo(f"\nrubric:\n{definition.rubric}\n\nsha256 {definition.sha256[:12]}")


def author(
    name: Annotated[str, typer.Argument(help="The new trait's name.")],
    description: Annotated[str, typer.Option("--description", help="What the trait means, in a sentence.")],
    model: Annotated[str, typer.Option("--author-model", help="The model that writes the definition.")],
    base_url: Annotated[
        str, typer.Option("--base-url", help="An OpenAI-compatible endpoint.")
    ] = "https://api.openai.com/v1",
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", help="The environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    language: Annotated[
        str | None, typer.Option("--language", help="Write in it; default: the description's language.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: NAME.yaml. Never overwritten.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Answers to ask for until one is good.")] = 3,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds for one answer.")] = 300.0,
    as_json: JsonFlag = False,
) -> None:
    """Have a model write a definition from one sentence; it is checked, and repaired or refused."""
    from guardrail.extract.author.dialogue import (
        Commission,
        check_commission,
        store_definition,
        write_definition,
    )
    from guardrail.extract.endpoint.client import Endpoint, EndpointSettings

    path = out or Path(f"{name}.yaml")
    commission = Commission(name=name, description=description, model=model, language=language, rounds=rounds)
    check_commission(commission, path)
    settings = EndpointSettings(base_url=base_url, api_key_env=api_key_env, timeout_s=timeout_s)
    with Endpoint(settings) as endpoint:
        definition = write_definition(endpoint, commission)
        definition = store_definition(
            definition, path, f"Written by {model} at {endpoint.url} from: {description}"
        )
    if as_json:
        print_json({"file": path, "definition": definition})
    else:
        typer.echo(
            f"{path}: {_counted(definition)}; read it before you use it (guardrail traits show {path})"
        )


def _counted(definition: TraitDefinition) -> str:
    questions = f"{len(definition.extraction)} + {len(definition.evaluation)} questions"
    return f"{len(definition.instructions)} instruction pairs, {questions}, a rubric"


def _vectors(name: str) -> TraitVectors:
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    return TraitVectors.load(resolve_vectors(name, Path()))
