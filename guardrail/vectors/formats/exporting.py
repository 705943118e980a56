"""One trait of ours into a foreign vector file, saying what that file cannot hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardrail.errors import VectorError
from guardrail.vectors.formats.formats import format_of
from guardrail.vectors.values import TraitVector, TraitVectors, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written, and what of the trait vector is not in it."""

    path: Path
    format: str
    trait: str
    lost: tuple[str, ...]


def export_vector(vectors: TraitVectors, path: Path, trait: str | None = None) -> Export:
    """Write what steers, not normalised, in the format that the suffix names.

    Raises VectorError where several traits leave open which is meant, and where the file exists.
    """
    kind = format_of(path)
    vector = _chosen(vectors, trait)
    if path.exists():
        raise VectorError(f"{path} exists; nothing was written")
    kind.write(path, vector, vectors.provenance.fingerprint)
    lost = (*_lost(vector, kind.first_block is not None), *kind.losses(vector))
    return Export(path=path, format=kind.name, trait=vector.trait, lost=lost)


def _chosen(vectors: TraitVectors, trait: str | None) -> TraitVector:
    names = ", ".join(vectors)
    if trait is None and len(vectors) != 1:
        raise VectorError(f"such a file holds one trait: say which of {names}")
    if trait is not None and trait not in vectors:
        raise VectorError(f"no trait {trait!r}; there are {names}")
    return vectors[next(iter(vectors)) if trait is None else trait]


def _lost(vector: TraitVector, blocks_only: bool) -> tuple[str, ...]:
    """What no foreign format holds."""
    lost = ["provenance: the fingerprint of the model, how and from what the vector was made"]
    if not np.allclose(vector.probe, unit(vector.steering), atol=1e-6) or vector.offset.any():
        lost.append("the probe and its offsets: readers detect with the steering direction")
    if vector.layer is not None:
        lost.append(f"that layer {vector.layer} was chosen")
    if blocks_only and vector.steering[0].any():
        lost.append("row 0, the embedding output")
    return tuple(lost)
