"""Trait vectors for every trait and layer, as they stand in one file.

Layers are 1-based: row l is the raw output of the l-th decoder block, row 0 the embedding output (stored,
but never read by a policy). Independent of torch, models and policies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from guardrail.errors import ConfigError, VectorError
from guardrail.files import json_text
from guardrail.files.problems import suggest
from guardrail.files.whole import write_whole
from guardrail.vectors import file_format
from guardrail.vectors.file_format import Header, canonical, vector
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.trait import TraitVector as TraitVector
from guardrail.vectors.trait import unit as unit

FLOAT32_MAX = float(np.finfo(np.float32).max)


def no_vector(trait: str, known: Iterable[str]) -> str:
    """What is said of a trait without a vector."""
    return f"there is no vector for the trait `{trait}`{suggest(trait, known)}"


@dataclass(frozen=True, slots=True, eq=False)
class TraitVectors(Mapping[str, TraitVector]):
    """A vector file: maps trait names to vectors, with one provenance. `sha256` is that of its content."""

    vectors: Mapping[str, TraitVector] = field(repr=False)
    provenance: Provenance

    def __post_init__(self) -> None:
        shapes = {vector.steering.shape for vector in self.vectors.values()}
        model = self.provenance.fingerprint
        if shapes - {(model.layers + 1, model.d_model)}:
            raise VectorError(
                f"vectors of shape {sorted(shapes)} do not fit {model.layers} layers x {model.d_model}"
            )

    def __getitem__(self, trait: str) -> TraitVector:
        return self.vectors[trait]

    def __iter__(self) -> Iterator[str]:
        return iter(self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def require(self, traits: Iterable[str]) -> None:
        """Raises ConfigError for the first trait without a vector."""
        for trait in traits:
            if trait not in self:
                raise ConfigError(no_vector(trait, self))

    @property
    def sha256(self) -> str:
        """The SHA-256 of the numbers and the provenance, not of the file's bytes."""
        digest = hashlib.sha256(file_format.header(self, self.provenance).encode())
        for name, values in sorted(file_format.arrays(self).items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with the provenance in its metadata."""
        from safetensors.numpy import save

        metadata = {
            "format": file_format.FORMAT,
            "version": file_format.version(self),
            "header": file_format.header(self, self.provenance),
        }
        write_whole(path, canonical(save(file_format.arrays(self), metadata=metadata)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`. Raises VectorError for anything else, and for unusable numbers."""
        try:
            metadata, arrays = file_format.read(Path(path))
            header = json_text.validated(Header, json_text.decoded(metadata["header"].encode()))
            vectors = {name: vector(name, entry, arrays) for name, entry in header.vectors.items()}
            return cls(vectors, header.provenance)
        except (VectorError, ValueError) as error:
            damaged = "" if isinstance(error, VectorError) else "damaged provenance: "
            raise VectorError(f"{path}: {damaged}{error}") from error
