"""`guardrail vectors import | export`: trait vectors from and for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from guardrail.cli.console import print_json, print_table
from guardrail.cli.models import fingerprint_of, load_vectors
from guardrail.cli.options import FingerprintOption, ModelOptions, OutputOptions, takes_options
from guardrail.cli.vectors.options import check_new
from guardrail.errors import VectorError

if TYPE_CHECKING:
    from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """The files that are read, and the one that is written."""

    files: Annotated[list[Path], Argument(help="Files of one model: .pt, .gguf or .svec.")]
    trait: Annotated[list[str], Option(help="Trait of each file, in the same order.")]
    out: Annotated[Path, Option(help="Vector file to write (.safetensors).")]
    first_block: Annotated[
        int | None,
        Option(
            min=0,
            max=1,
            help="Number of the first decoder block in .gguf and .svec files: 0, or 1 for files of "
            "llama.cpp's cvector-generator and for vectors fitted on block inputs.",
            show_default="0",
        ),
    ] = None
    layer: Annotated[
        int | None, Option(min=1, help="Layer of a .pt tensor [d_model] (refusal direction).")
    ] = None
    token: Annotated[
        int | None,
        Option(
            max=-1, help="Token to take of a .pt tensor [positions, L, d_model]; -1 is the prompt's last."
        ),
    ] = None
    force: Annotated[bool, Option("--force", help="Overwrite --out if it exists.")] = False


@takes_options
def import_(
    given: ImportOptions, model: ModelOptions, stand_in: FingerprintOption, output: OutputOptions
) -> None:
    """Read other tools' vector files into one of guardrail's. Never unpickles anything."""
    from guardrail.vectors.formats import Place, format_of, import_vectors

    pairs, out = _paired(given.files, given.trait), given.out
    for path in given.files:
        format_of(path)
    check_new(out, given.force)
    place = Place(layer=given.layer, token=given.token)
    vectors = import_vectors(pairs, fingerprint_of(model, stand_in.fingerprint), given.first_block, place)
    vectors.save(out)
    if output.as_json:
        print_json({"out": out, "sha256": vectors.sha256, "provenance": vectors.provenance})
    else:
        _print_imported(vectors, out)


def _paired(files: Sequence[Path], traits: Sequence[str]) -> dict[str, Path]:
    if len(files) != len(traits):
        raise VectorError(f"{len(files)} files and {len(traits)} traits: say --trait once for each file")
    if len(set(traits)) < len(traits):
        raise VectorError("a trait is named twice")
    return dict(zip(traits, files, strict=True))


def _print_imported(vectors: TraitVectors, out: Path) -> None:
    rows = [
        (name, source.file, source.format, source.sha256[:12], _layers(vectors, name))
        for name, source in vectors.provenance.imported.items()
    ]
    print_table(("trait", "from", "format", "sha256", "usable layers"), rows)
    chosen = ", ".join(f"{name}: layer {one.layer}" for name, one in vectors.items() if one.layer)
    hint = chosen or "No layer is chosen: name one in policies, or run `guardrail vectors layers`"
    typer.echo(f"wrote {out}. {hint}")


def _layers(vectors: TraitVectors, trait: str) -> str:
    vector = vectors[trait]
    return ", ".join(str(layer) for layer in range(1, vector.layers + 1) if vector.usable(layer))


@takes_options
def export(
    file: Annotated[str, Argument(help="Vector file, or `demo`.")],
    out: Annotated[Path, Option(help="File to write: .pt, .gguf or .svec.")],
    trait: Annotated[str | None, Option(help="Trait to export, if the file has several.")] = None,
    *,
    output: OutputOptions,
) -> None:
    """Write one trait's steering vector for another tool, and list what that file cannot hold."""
    from guardrail.vectors.formats import export_vector

    done = export_vector(load_vectors(file), out, trait)
    if output.as_json:
        print_json(done)
        return
    typer.echo(f"wrote {done.trait} to {done.path} ({done.format}). Not in it:")
    for line in done.lost:
        typer.echo(f"  {line}")
