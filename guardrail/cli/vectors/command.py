"""`guardrail vectors`: what a vector file holds, and where prompts stand on its traits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.console import JsonFlag, ModelName, PoliciesFile, print_json, print_table
from guardrail.cli.guards import open_guard
from guardrail.cli.vectors import extract, files, layers

if TYPE_CHECKING:
    from guardrail.vectors.values import TraitVectors


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Look at trait vectors, make and exchange them.", no_args_is_help=True)
    group.command("show")(show)
    group.command("project")(project)
    extract.register(group)
    layers.register(group)
    files.register(group)
    app.add_typer(group, name="vectors")


def show(
    file: Annotated[str, typer.Argument(help="A vector file, or `demo`.")] = "demo", as_json: JsonFlag = False
) -> None:
    """What a vector file holds: traits, layers, norms, cosines, and where it comes from."""
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    vectors = TraitVectors.load(resolve_vectors(file, Path()))
    if as_json:
        print_json(_described(vectors))
    else:
        _print_described(vectors)


def _described(vectors: TraitVectors) -> dict[str, object]:
    return {
        "sha256": vectors.sha256,
        "provenance": vectors.provenance,
        "traits": [
            {"name": name, "layer": v.layer, "norms": _norms(vectors, name), "unusable": v.unusable}
            for name, v in vectors.items()
        ],
        "cosines": _cosines(vectors),
    }


def _norms(vectors: TraitVectors, trait: str) -> list[float]:
    import numpy as np

    return [float(norm) for norm in np.linalg.norm(vectors[trait].steering, axis=1)]


def _cosines(vectors: TraitVectors) -> dict[str, dict[str, float]]:
    """Between steering directions, at the layer that was chosen for the trait in the row."""
    return {
        a: {b: float(v.cosine(other)[v.layer or v.layers]) for b, other in vectors.items()}
        for a, v in vectors.items()
    }


def _print_described(vectors: TraitVectors) -> None:
    source, model = vectors.provenance, vectors.provenance.fingerprint
    typer.echo(f"sha256 {vectors.sha256[:12]}; {source.method}; made {source.created}")
    typer.echo(
        f"model {model.architecture}, {model.layers} layers x {model.d_model}, weights {model.weights}"
    )
    layers = [str(row) for row in range(model.layers + 1)]
    rows = [(n, v.layer, *(_norms(vectors, n))) for n, v in vectors.items()]
    print_table(("trait", "auto", *layers), rows, title="\nnorm of the steering vector at each layer")
    cosines = [(n, *row.values()) for n, row in _cosines(vectors).items()]
    print_table(("", *vectors), cosines, title="\ncosine at the row's chosen layer")
    for name, choice in source.layer_choices.items():
        typer.echo(f"\n{name}: layer {choice.layer} by {choice.selector}: {choice.rule}")
    for name, file in source.imported.items():
        typer.echo(f"\n{name}: imported from {file.file} ({file.format}, sha256 {file.sha256[:12]})")
    if source.notes:
        typer.echo(f"\n{source.notes}")


def project(
    prompts: Annotated[list[str], typer.Argument(help="Prompts, each one user message.")],
    model: ModelName = "demo",
    policies: PoliciesFile = None,
    vectors: Annotated[str | None, typer.Option("--vectors", help="A vector file, not calibrated.")] = None,
    trait: Annotated[list[str] | None, typer.Option("--trait", help="Only these traits.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Scores of prompts on every trait at every layer; projections where there is no calibration."""
    with open_guard(model, policies or _only(vectors)) as guard:
        names = trait or list(guard.active.vectors)
        for prompt in prompts:
            scores = guard.project(prompt, traits=names).tolist()
            if as_json:
                print_json({"prompt": prompt, "scores": dict(zip(names, scores, strict=True))})
            else:
                _print_scores(prompt, names, scores)


def _only(vectors: str | None) -> dict[str, object] | None:
    return {"version": 1, "vectors": vectors, "allow_empty": True} if vectors else None


def _print_scores(prompt: str, names: Sequence[str], scores: Sequence[Sequence[float]]) -> None:
    layers = [f"layer {row + 1}" for row in range(len(scores[0]))]
    rows = [(name, *row) for name, row in zip(names, scores, strict=True)]
    print_table(("", *layers), rows, title=f"\n{prompt}")
