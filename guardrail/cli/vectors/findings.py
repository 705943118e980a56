"""What `guardrail vectors extract` prints: the vectors and their evidence, or why there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import errors, interval, print_json, print_wide, warn
from guardrail.errors import ExtractionError

if TYPE_CHECKING:
    from guardrail.extract.extraction import Extraction
    from guardrail.vectors.provenance import TraitSource
    from guardrail.vectors.values import TraitVectors

EVIDENCE = (
    "score: mean judged score with instructions for the trait, against it, and without a system prompt. "
    "by chance: pairs that are kept at most (99 %) if the two sides are shuffled. "
    "split half: cosine of two halves. auroc, others: from plain prompts and from other traits, held out."
)


def show(found: Extraction, out: Path, as_json: bool) -> None:
    """The vectors that were made, and the traits that have none. Warnings go to standard error."""
    failed = {trait: str(error) for trait, error in found.failed.items()}
    for text in _doubts(found.vectors):
        warn(text)
    if as_json:
        vectors = found.vectors
        print_json({"out": out, "sha256": vectors.sha256, "provenance": vectors.provenance, "failed": failed})
        return
    print_evidence(found.vectors)
    for message in failed.values():
        errors().print("[bold red]not extracted[/]", message, markup=True)
    typer.echo(f"wrote {out}. No layer is chosen: name one in policies, or run `guardrail vectors layers`")


def show_nothing(error: ExtractionError, work: Path, as_json: bool) -> None:
    """Why no file was written; `evidence.json` of each trait keeps the numbers."""
    if as_json:
        print_json({"out": None, "work": work, "finding": type(error).__name__, "reason": str(error)})
    else:
        typer.echo(f"nothing was written: {error}", err=True)
        typer.echo(f"replies and scores so far, with evidence.json for each trait: {work}", err=True)


def _doubts(vectors: TraitVectors) -> Iterator[str]:
    for name, source in vectors.provenance.traits.items():
        if source.stability and (text := source.stability.unsteady(_best(source))):
            yield f"{name}: {text}; take more questions (--questions) or samples (--samples)"


def print_evidence(vectors: TraitVectors) -> None:
    """What the vectors that were extracted rest on; nothing for others."""
    made = vectors.provenance
    judged = {name: one for name, one in made.traits.items() if one.detection_auroc and name not in made.fits}
    if not judged:
        return
    scores = ("score with", "without", "plain")
    columns = ("trait", "pairs kept", "of", "by chance", *scores, "with - without", "split half")
    columns = (*columns, "auroc", "others", "at layer", "numeric mass")
    print_wide(columns, [(name, *_row(source)) for name, source in judged.items()])
    typer.echo(EVIDENCE)


def _row(source: TraitSource) -> tuple[object, ...]:
    """One trait, at the layer that separates best."""
    best = _best(source)
    shown = source.induction
    halves = source.stability.split_half[best] if source.stability else None
    areas = (part[best - 1] if part else None for part in (source.detection_auroc, source.others_auroc))
    return (
        *(source.positive, source.rollouts, shown.chance_high if shown else None),
        *(
            source.positive_mean,
            source.negative_mean,
            source.baseline,
            interval(shown.difference if shown else None, ".0f"),
        ),
        *(halves, *areas, best, source.numeric_mass),
    )


def _best(source: TraitSource) -> int:
    rest = source.others_auroc or source.detection_auroc
    areas = [own + other for own, other in zip(source.detection_auroc, rest, strict=True)]
    return 1 + areas.index(max(areas))
