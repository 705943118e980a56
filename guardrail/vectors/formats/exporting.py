"""Exports one trait to another tool's vector file, and reports what that format cannot store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardrail.errors import VectorError
from guardrail.vectors.formats.formats import format_of
from guardrail.vectors.values import TraitVector, TraitVectors, no_vector, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written, and which parts of the trait vector are missing from it."""

    path: Path
    format: str
    trait: str
    lost: tuple[str, ...]


def export_vector(vectors: TraitVectors, path: Path, trait: str | None = None) -> Export:
    """Write the steering vector, not normalised, in the format given by the suffix.

    Raises VectorError if the file exists, if its folder does not, or if there are several traits and
    `trait` names none.
    """
    kind = format_of(path)
    vector = _chosen(vectors, trait)
    _check_new(path)
    kind.write(path, vector, vectors.provenance.fingerprint)
    lost = (*_lost(vector, kind.first_block is not None), *kind.losses(vector))
    return Export(path=path, format=kind.name, trait=vector.trait, lost=lost)


def _check_new(path: Path) -> None:
    if path.exists():
        raise VectorError(f"{path} already exists; nothing was written")
    if not path.absolute().parent.is_dir():
        raise VectorError(f"{path}: there is no such folder")


def _chosen(vectors: TraitVectors, trait: str | None) -> TraitVector:
    if trait is None and len(vectors) != 1:
        raise VectorError(f"this format holds one trait; choose one of {', '.join(vectors)}")
    if trait is not None and trait not in vectors:
        raise VectorError(no_vector(trait, vectors))
    return vectors[next(iter(vectors)) if trait is None else trait]


def _lost(vector: TraitVector, blocks_only: bool) -> tuple[str, ...]:
    """What none of the other formats can store."""
    lost = ["provenance: the model's fingerprint, and how and from what the vector was made"]
    if not np.allclose(vector.probe, unit(vector.steering), atol=1e-6) or vector.offset.any():
        lost.append("the probe and its offsets: readers detect with the steering direction")
    if vector.position != "last" or vector.normalised or vector.sites:
        lost.append("what the probe reads, and any sum over sites: readers take single tokens")
    if vector.layer is not None:
        lost.append(f"the choice of layer {vector.layer}")
    if blocks_only and (
        unusable := [f"{row}" for row in range(1, vector.layers + 1) if not vector.usable(row)]
    ):
        lost.append(f"the layers that cannot be used: {', '.join(unusable)}")
    if blocks_only and vector.steering[0].any():
        lost.append("row 0, the embedding output")
    return tuple(lost)
