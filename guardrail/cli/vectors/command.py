"""`guardrail vectors`: what a vector file holds, and how prompts score on its traits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from guardrail.cli.console import print_json, print_table, print_wide
from guardrail.cli.models import load_vectors, open_guard
from guardrail.cli.options import (
    DEMO,
    ModelOptions,
    OutputOptions,
    PoliciesOption,
    PromptOptions,
    add_group,
    takes_options,
)
from guardrail.cli.prompts import chosen
from guardrail.cli.vectors.extract import extract
from guardrail.cli.vectors.files import export, import_
from guardrail.cli.vectors.findings import print_evidence
from guardrail.cli.vectors.fit import fit
from guardrail.cli.vectors.fits import print_fit
from guardrail.cli.vectors.layers import layers
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.vectors.provenance import TraitSource
    from guardrail.vectors.values import TraitVector, TraitVectors


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    about, files = "Inspect, create, import and export trait vectors.", {"import_": import_, "export": export}
    verbs = {"show": show, "project": project, "extract": extract, "fit": fit, "layers": layers}
    add_group(app, "vectors", about, **verbs, **files)


@takes_options
def show(
    file: Annotated[str, Argument(help="Vector file, or `demo`.")] = DEMO, *, output: OutputOptions
) -> None:
    """Show what a vector file holds: traits, layers, norms, cosines, and where it comes from."""
    vectors = load_vectors(file)
    if output.as_json:
        print_json(_described(vectors))
    else:
        _print_described(vectors)


def _described(vectors: TraitVectors) -> dict[str, object]:
    return {
        "sha256": vectors.sha256,
        "provenance": vectors.provenance,
        "traits": [_described_trait(vectors, name) for name in vectors],
        "cosines": _cosines(vectors),
    }


def _described_trait(vectors: TraitVectors, name: str) -> dict[str, object]:
    vector = vectors[name]
    return {
        "name": name,
        "layer": vector.layer,
        "reads": _reads(vector),
        "norms": _norms(vectors, name),
        "unusable": vector.unusable,
    }


def _reads(vector: TraitVector) -> str:
    """What the probe reads, at its chosen layer if it has one."""
    return vector.probe_at(vector.layer or 1).read_outs


def _norms(vectors: TraitVectors, trait: str) -> list[float]:
    import numpy as np

    return [float(norm) for norm in np.linalg.norm(vectors[trait].steering, axis=1)]


def _cosines(vectors: TraitVectors) -> dict[str, dict[str, float]]:
    """Cosines of steering directions, at the layer that was chosen for the trait in the row."""
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
    print_wide(("trait", "auto", *layers), rows, "\nnorm of the steering vector at each layer", lead=2)
    if len(vectors) > 1:
        cosines = [(n, *(f"{c:z.2f}" for c in row.values())) for n, row in _cosines(vectors).items()]
        print_wide(("", *vectors), cosines, "\ncosine at the row's chosen layer")
    typer.echo()
    print_evidence(vectors)
    for name, vector in vectors.items():
        if text := _unsteady(source.traits.get(name), vector.layer):
            typer.echo(f"\nwarning: {name}: {text}")
        if (reads := _reads(vector)) != "last":
            typer.echo(f"\n{name}: the probe reads {reads}")
    for name, choice in source.layer_choices.items():
        typer.echo(f"\n{name}: layer {choice.layer} by {choice.selector}: {choice.rule}")
    for name, fitted in source.fits.items():
        print_fit(name, fitted)
    for name, file in source.imported.items():
        typer.echo(f"\n{name}: imported from {file.file} ({file.format}, sha256 {file.sha256[:12]})")
    if source.notes:
        typer.echo(f"\n{source.notes}")


def _unsteady(source: TraitSource | None, layer: int | None) -> str | None:
    """What to say of a chosen layer's vector that depends on its questions."""
    known = source.stability if source else None
    return known.unsteady(layer) if known and layer is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """The traits whose scores are shown."""

    vectors: Annotated[str | None, Option(help="Vector file to use without a calibration.")] = None
    trait: Annotated[list[str] | None, Option(help="Show only these traits.")] = None


@takes_options
def project(
    given: PromptOptions,
    model: ModelOptions,
    policies: PoliciesOption,
    options: ScoreOptions,
    output: OutputOptions,
) -> None:
    """Show scores of prompts on every trait at every layer; projections if there is no calibration."""
    prompts = chosen(given)
    with open_guard(model, policies.policies or _only(options.vectors)) as guard:
        names = options.trait or list(guard.active.vectors)
        for prompt in prompts:
            scores = guard.project(prompt.content, traits=names).tolist()
            if output.as_json:
                print_json({"prompt": prompt.text, "scores": dict(zip(names, scores, strict=True))})
            else:
                _print_scores(prompt.text, names, scores)


def _only(vectors: str | None) -> dict[str, object] | None:
    return {"version": 1, "vectors": vectors, "allow_empty": True} if vectors else None


def _print_scores(prompt: str, names: Sequence[str], scores: Sequence[Sequence[float]]) -> None:
    layers = [f"layer {row + 1}" for row in range(len(scores[0]))]
    rows = [(name, *row) for name, row in zip(names, scores, strict=True)]
    print_table(("", *layers), rows, title=f"\n{prompt}")
