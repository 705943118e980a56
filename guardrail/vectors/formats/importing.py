"""Imports vector files of other tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from guardrail.errors import VectorError
from guardrail.files.json_text import content
from guardrail.files.records import utc_now
from guardrail.types import Fingerprint
from guardrail.vectors.formats.directions import assembled
from guardrail.vectors.formats.formats import VectorFormat, format_of
from guardrail.vectors.formats.persona_vectors import POSITIONS
from guardrail.vectors.formats.refusal_direction import Place
from guardrail.vectors.provenance import Imported, Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

ITS_OWN = Place()


def import_vectors(
    files: Mapping[str, Path], model: Fingerprint, first_block: int | None = None, place: Place = ITS_OWN
) -> TraitVectors:
    """Vectors of one model, read from one file per trait.

    `first_block` is the files' number for the first decoder block, 0 or 1; None uses the format's default.
    `place`: the layer and the token of tensors that do not name theirs. Probes are unit directions without
    offset: calibrate before using thresholds. No layer is chosen, unless the file's project chose one. Raises
    VectorError with the file's name.
    """
    if not files:
        raise VectorError("no file to import")
    read = {trait: _read(trait, path, model, first_block, place) for trait, path in files.items()}
    provenance = Provenance(
        fingerprint=model,
        method="imported",
        created=utc_now(),
        position=" | ".join(sorted({_position(path) for path in files.values()})),
        imported={trait: source for trait, (_, source) in read.items()},
    )
    return TraitVectors({trait: vector for trait, (vector, _) in read.items()}, provenance)


def _read(
    trait: str, path: Path, model: Fingerprint, first_block: int | None, place: Place
) -> tuple[TraitVector, Imported]:
    kind = format_of(path)
    number = _first_block(kind, path, first_block)
    try:
        digest = hashlib.sha256(content(path)).hexdigest()
        vector = assembled(trait, kind.read(path, model, number or 0, place), model)
    except VectorError as error:
        raise VectorError(f"{path}: {error}") from error
    except Exception as error:  # hostile files make the libraries raise anything
        raise VectorError(f"{path}: cannot be read as {kind.name}: {_first_line(error)}") from error
    return vector, Imported(file=path.name, sha256=digest, format=kind.name, first_block=number)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def _first_block(kind: VectorFormat, path: Path, asked: int | None) -> int | None:
    if asked is None or asked == kind.first_block:
        return kind.first_block
    if kind.first_block is None:
        raise VectorError(
            f"{path}: the rows of a {kind.suffix} file are layers, so the first block has no number"
        )
    if asked not in (0, 1):
        raise VectorError(f"the number of the first block must be 0 or 1, not {asked}")
    return asked


def _position(path: Path) -> str:
    """The position at which activations were read, which only official file names tell."""
    return next((where for end, where in POSITIONS.items() if path.stem.endswith(end)), "unknown")
