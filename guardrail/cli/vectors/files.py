"""`guardrail vectors import | export`: trait vectors from and for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.console import JsonFlag, ModelName, print_json, print_table

if TYPE_CHECKING:
    from guardrail.vectors.values import TraitVectors


def register(group: typer.Typer) -> None:
    """Add the verbs to `guardrail vectors`."""
    group.command("import")(import_)
    group.command("export")(export)


def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of one model: .pt, .gguf or .svec.")],
    trait: Annotated[list[str], typer.Option("--trait", help="The trait of each file, in their order.")],
    out: Annotated[Path, typer.Option("--out", help="The vector file to write (.safetensors).")],
    model: ModelName = "demo",
    fingerprint: Annotated[
        Path | None, typer.Option("--fingerprint", help="A fingerprint as JSON, in place of the model.")
    ] = None,
    first_block: Annotated[
        int | None,
        typer.Option(
            "--first-block",
            min=0,
            max=1,
            help="The number of the first decoder block in .gguf and .svec files: 0, or 1 for those of "
            "llama.cpp's cvector-generator and those fitted on block inputs.",
            show_default="0",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read other tools' vector files into one of ours. Nothing is unpickled, nothing is overwritten."""
    from guardrail.cli.fingerprints import fingerprint_of
    from guardrail.errors import VectorError
    from guardrail.vectors.formats import format_of, import_vectors

    pairs = _paired(files, trait)
    for path in files:
        format_of(path)
    if out.exists():
        raise VectorError(f"{out} exists; nothing was written")
    vectors = import_vectors(pairs, fingerprint_of(model, fingerprint), first_block)
    vectors.save(out)
    if as_json:
        print_json({"out": out, "sha256": vectors.sha256, "provenance": vectors.provenance})
    else:
        _print_imported(vectors, out)


def _paired(files: Sequence[Path], traits: Sequence[str]) -> dict[str, Path]:
    from guardrail.errors import VectorError

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
    typer.echo(f"wrote {out}. No layer is chosen: name one in policies, or run `guardrail vectors layers`")


def _layers(vectors: TraitVectors, trait: str) -> str:
    vector = vectors[trait]
    return ", ".join(str(layer) for layer in range(1, vector.layers + 1) if vector.usable(layer))


def export(
    file: Annotated[str, typer.Argument(help="A vector file, or `demo`.")],
    out: Annotated[Path, typer.Option("--out", help="What to write: .pt, .gguf or .svec.")],
    trait: Annotated[str | None, typer.Option("--trait", help="Which, where there are several.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write one trait's steering vector for another tool, and say what that file cannot hold."""
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.formats import export_vector
    from guardrail.vectors.values import TraitVectors

    done = export_vector(TraitVectors.load(resolve_vectors(file, Path())), out, trait)
    if as_json:
        print_json(done)
        return
    typer.echo(f"wrote {done.trait} to {done.path} ({done.format}). Not in it:")
    for line in done.lost:
        typer.echo(f"  {line}")
