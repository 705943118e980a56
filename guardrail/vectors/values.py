"""Trait vectors for every trait and layer: the data type, and its file format.

Layers are 1-based: row l is the raw output of the l-th decoder block, row 0 the embedding output (stored,
but never read by a policy). Files are safetensors with the provenance as JSON in the metadata. Independent of
torch, models and policies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import VectorError
from guardrail.files import json_text
from guardrail.types import Array
from guardrail.vectors.provenance import LATER_FIELDS, LATER_SOURCE_FIELDS, Provenance

FORMAT = "guardrail-vectors"
FORMAT_VERSION = 1
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class TraitVector:
    """One trait: the difference of mean activations with and without it, not normalised.

    steering: [L + 1, d_model] float32. probe: [L + 1, d_model] float32 and offset: [L + 1] float32 detect the
    trait: projection = <h, probe[l]> + offset[l]. `layer` is the layer that an evaluation chose, used for
    `layer: auto`; None if none was chosen. `unusable` rows are never read (such as row L of an official file,
    taken after the final norm). Source: Chen et al. 2025, arXiv 2507.21509, 2.2.
    """

    trait: str
    steering: Array = field(repr=False)
    probe: Array = field(repr=False)
    offset: Array = field(repr=False)
    layer: int | None = None
    unusable: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_trait_vector(self)

    @classmethod
    def from_difference(cls, trait: str, difference: NDArray[np.floating], layer: int | None = None) -> Self:
        """A vector whose probe is its own unit direction at each layer."""
        steering = np.asarray(difference, dtype=np.float32)
        offset = np.zeros(len(steering), dtype=np.float32)
        return cls(trait, steering, unit(steering), offset, layer)

    @property
    def layers(self) -> int:
        """L, the number of decoder blocks."""
        return len(self.steering) - 1

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.steering.shape[1]

    def usable(self, layer: int) -> bool:
        """Whether policies may read and steer at this layer."""
        return 1 <= layer <= self.layers and layer not in self.unusable

    def incremental(self) -> Array:
        """[L + 1, d_model]: v_l - v_(l-1), with row 0 zero (arXiv 2507.21509, J.3)."""
        return np.diff(self.steering, axis=0, prepend=self.steering[:1]).astype(np.float32)

    def cosine(self, other: TraitVector) -> NDArray[np.float32]:
        """[L + 1]: the cosine of the steering directions at each layer."""
        return np.sum(unit(self.steering) * unit(other.steering), axis=1)

    def __add__(self, other: TraitVector) -> TraitVector:
        return self._combined(other, f"{self.trait}+{other.trait}", 1.0)

    def __sub__(self, other: TraitVector) -> TraitVector:
        return self._combined(other, f"{self.trait}-{other.trait}", -1.0)

    def __mul__(self, factor: float) -> TraitVector:
        return replace(self, steering=(self.steering * factor).astype(np.float32))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> TraitVector:
        return self * (1.0 / divisor)

    def __neg__(self) -> TraitVector:
        return self * -1.0

    def _combined(self, other: TraitVector, trait: str, sign: float) -> TraitVector:
        if self.steering.shape != other.steering.shape:
            raise VectorError(f"shapes differ: {self.steering.shape} and {other.steering.shape}")
        vector = TraitVector.from_difference(trait, self.steering + sign * other.steering)
        return replace(vector, unusable=tuple(sorted({*self.unusable, *other.unusable})))


def unit(rows: Array) -> Array:
    """Rows divided by their Euclidean norm; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0).astype(np.float32)


def check_trait_vector(vector: TraitVector) -> None:
    """Raises VectorError for wrong shapes, non-finite numbers, zero rows and an invalid layer."""
    trait, shape = vector.trait, vector.steering.shape
    if len(shape) != 2 or shape[0] < 2:
        raise VectorError(f"{trait}: steering must be [layers + 1, d_model], not {shape}")
    if vector.probe.shape != shape or vector.offset.shape != shape[:1]:
        raise VectorError(
            f"{trait}: probe {vector.probe.shape} and offset {vector.offset.shape} do not fit {shape}"
        )
    for name, values in (("steering", vector.steering), ("probe", vector.probe), ("offset", vector.offset)):
        if not np.isfinite(values).all():
            raise VectorError(f"{trait}: {name} has NaN or infinite numbers")
    for name, values in (("steering", vector.steering), ("probe", vector.probe)):
        zero = [row for row in range(1, shape[0]) if vector.usable(row) and not values[row].any()]
        if zero:
            raise VectorError(f"{trait}: {name} has zero norm at layer {', '.join(map(str, zero))}")
    if vector.layer is not None and not vector.usable(vector.layer):
        raise VectorError(f"{trait}: layer {vector.layer} is not a usable layer (1 to {shape[0] - 1})")


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

    @property
    def sha256(self) -> str:
        """The SHA-256 of the numbers and the provenance, not of the file's bytes."""
        digest = hashlib.sha256(_header(self).encode())
        for name, values in sorted(_arrays(self).items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with the provenance in its metadata."""
        from safetensors.numpy import save

        metadata = {"format": FORMAT, "version": str(FORMAT_VERSION), "header": _header(self)}
        Path(path).write_bytes(canonical(save(_arrays(self), metadata=metadata)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`. Raises VectorError for anything else, and for unusable numbers."""
        try:
            metadata, arrays = _read(Path(path))
            header = json_text.validated(_Header, json_text.decoded(metadata["header"].encode()))
            vectors = {name: _vector(name, entry, arrays) for name, entry in header.vectors.items()}
            return cls(vectors, header.provenance)
        except (VectorError, ValueError) as error:
            damaged = "" if isinstance(error, VectorError) else "damaged provenance: "
            raise VectorError(f"{path}: {damaged}{error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What the header says about one trait."""

    layer: int | None
    unusable: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    vectors: Mapping[str, _Entry]
    provenance: Provenance


def canonical(data: bytes) -> bytes:
    """A safetensors file with its header in a fixed order, so that equal content gives equal bytes.

    The library writes metadata in an order that differs between processes.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _arrays(vectors: TraitVectors) -> dict[str, NDArray[np.float32]]:
    return {
        f"{trait}/{part}": np.ascontiguousarray(getattr(vector, part), dtype=np.float32)
        for trait, vector in vectors.items()
        for part in ("steering", "probe", "offset")
    }


def _header(vectors: TraitVectors) -> str:
    layers = {name: {"layer": v.layer, "unusable": v.unusable} for name, v in vectors.items()}
    return json.dumps({"provenance": _provenance(vectors.provenance), "vectors": layers}, sort_keys=True)


def _provenance(provenance: Provenance) -> dict[str, Any]:
    data = {name: v for name, v in asdict(provenance).items() if v or name not in LATER_FIELDS}
    return data | {"traits": {trait: _source(source) for trait, source in data["traits"].items()}}


def _source(source: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in source.items() if v or name not in LATER_SOURCE_FIELDS}


def _read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """The metadata and the arrays. Raises VectorError for files of others, before it reads numbers."""
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            _check_format(metadata)
            if other := {file.get_slice(name).get_dtype() for name in names} - {"F32"}:
                raise VectorError(f"numbers have the type {min(other)}, not F32")
            return metadata, {name: file.get_tensor(name) for name in names}
    except VectorError:
        raise
    except Exception as error:  # the library raises its own error, OSError, TypeError and others
        raise VectorError(f"cannot be read as safetensors: {error}") from error


def _check_format(metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT or "header" not in metadata:
        raise VectorError("not a guardrail vector file")
    if (version := metadata.get("version")) != str(FORMAT_VERSION):
        raise VectorError(f"version {version} is not supported; supported: {FORMAT_VERSION}")


def _vector(trait: str, entry: _Entry, arrays: Mapping[str, Array]) -> TraitVector:
    names = [f"{trait}/{part}" for part in ("steering", "probe", "offset")]
    if missing := [name for name in names if name not in arrays]:
        raise VectorError(f"`{missing[0]}` is missing")
    return TraitVector(trait, *(arrays[name] for name in names), layer=entry.layer, unusable=entry.unusable)
