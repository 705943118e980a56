"""The supported formats of other tools, by file suffix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import VectorError
from guardrail.types import Fingerprint
from guardrail.vectors.formats import control_vectors, persona_vectors, svec
from guardrail.vectors.formats.directions import Directions
from guardrail.vectors.formats.refusal_direction import Place
from guardrail.vectors.values import TraitVector


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFormat:
    """One format. `first_block` is its number for the first decoder block; None if rows are layers."""

    name: str
    suffix: str
    first_block: int | None
    read: Callable[[Path, Fingerprint, int, Place], Directions]
    write: Callable[[Path, TraitVector, Fingerprint], None]
    losses: Callable[[TraitVector], tuple[str, ...]]


FORMATS = (
    VectorFormat(
        name="persona-vectors",
        suffix=".pt",
        first_block=None,
        read=persona_vectors.read,
        write=persona_vectors.write,
        losses=persona_vectors.losses,
    ),
    VectorFormat(
        name="control-vector",
        suffix=".gguf",
        first_block=0,
        read=control_vectors.read,
        write=control_vectors.write,
        losses=control_vectors.losses,
    ),
    VectorFormat(
        name="svec", suffix=".svec", first_block=0, read=svec.read, write=svec.write, losses=svec.losses
    ),
)


def format_of(path: Path) -> VectorFormat:
    """The format for a file's suffix. Raises VectorError for an unknown suffix."""
    for one in FORMATS:
        if path.suffix.lower() == one.suffix:
            return one
    known = ", ".join(f"{one.suffix} ({one.name})" for one in FORMATS)
    raise VectorError(f"{path}: unknown suffix; vector files of other tools end in {known}")
