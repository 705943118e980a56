"""The file format of trait vectors: safetensors, with the provenance as JSON in the metadata.

Arrays `TRAIT/steering`, `TRAIT/probe`, `TRAIT/offset`, and `TRAIT/sites` [sites, d_model] for a probe that is
a sum. Version 2 is written only for read-outs that version 1 does not know.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import VectorError
from guardrail.types import Array, Position, ProbeSite
from guardrail.vectors.provenance import LATER_FIELDS, LATER_FIT_FIELDS, LATER_SOURCE_FIELDS, Provenance
from guardrail.vectors.trait import TraitVector

FORMAT = "guardrail-vectors"
VERSIONS = ("1", "2")
PARTS = ("steering", "probe", "offset")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEntry:
    """What the header says about one site; its weights are a row of the trait's array `sites`."""

    layer: int
    position: Position
    normalised: bool
    absent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the header says about one trait."""

    layer: int | None
    unusable: tuple[int, ...]
    position: Position = "last"
    normalised: bool = False
    sites: tuple[SiteEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of a file."""

    vectors: Mapping[str, Entry]
    provenance: Provenance


def canonical(data: bytes) -> bytes:
    """A safetensors file with its header in a fixed order, so that equal content gives equal bytes.

    The library writes metadata in an order that differs between processes.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def arrays(vectors: Mapping[str, TraitVector]) -> dict[str, NDArray[np.float32]]:
    """The arrays of a file, by name: the parts of each trait, and the weights of its sites if it has any."""
    found = {f"{trait}/{part}": getattr(v, part) for trait, v in vectors.items() for part in PARTS}
    summed = {f"{trait}/sites": _weights(v.sites) for trait, v in vectors.items() if v.sites}
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in (found | summed).items()}


def _weights(sites: Sequence[ProbeSite]) -> Array:
    return np.stack([site.weights for site in sites])


def header(vectors: Mapping[str, TraitVector], provenance: Provenance) -> str:
    """The header of a file, as JSON."""
    entries = {name: _entry(vector) for name, vector in vectors.items()}
    return json.dumps({"provenance": _provenance(provenance), "vectors": entries}, sort_keys=True)


def version(vectors: Mapping[str, TraitVector]) -> str:
    """The oldest version that holds these vectors, so that no older reader takes a mean for `last`."""
    return VERSIONS[any(len(_entry(vector)) > 2 for vector in vectors.values())]


def _entry(vector: TraitVector) -> dict[str, Any]:
    """What the header says about a trait; read-outs only if they differ from those of older files."""
    found: dict[str, Any] = {"layer": vector.layer, "unusable": vector.unusable}
    if vector.position != "last":
        found["position"] = vector.position
    if vector.normalised:
        found["normalised"] = True
    if vector.sites:
        found["sites"] = [_site_entry(site) for site in vector.sites]
    return found


def _site_entry(site: ProbeSite | SiteEntry) -> dict[str, Any]:
    return {name: getattr(site, name) for name in ("layer", "position", "normalised", "absent")}


def _provenance(provenance: Provenance) -> dict[str, Any]:
    data = {name: v for name, v in asdict(provenance).items() if v or name not in LATER_FIELDS}
    fits = {trait: _without(fit, LATER_FIT_FIELDS) for trait, fit in data.get("fits", {}).items()}
    sources = {trait: _without(source, LATER_SOURCE_FIELDS) for trait, source in data["traits"].items()}
    return data | {"traits": sources} | ({"fits": fits} if fits else {})


def _without(part: Mapping[str, Any], later: Collection[str]) -> dict[str, Any]:
    """Without what is empty and was not there in older files."""
    return {name: value for name, value in part.items() if value or name not in later}


def read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
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
    except FileNotFoundError as error:
        raise VectorError("cannot be read: No such file or directory") from error
    except Exception as error:  # the library raises its own error, OSError, TypeError and others
        raise VectorError(f"cannot be read as safetensors: {error}") from error


def _check_format(metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT or "header" not in metadata:
        raise VectorError("not a guardrail vector file")
    if (found := metadata.get("version")) not in VERSIONS:
        raise VectorError(f"version {found} is not supported; supported: {', '.join(VERSIONS)}")


def vector(trait: str, entry: Entry, arrays: Mapping[str, Array]) -> TraitVector:
    """One trait's vector. Raises VectorError if arrays are missing or do not fit."""
    names = [f"{trait}/{part}" for part in (*PARTS, *(["sites"] if entry.sites else []))]
    if missing := [name for name in names if name not in arrays]:
        raise VectorError(f"`{missing[0]}` is missing")
    return TraitVector(
        trait,
        *(arrays[name] for name in names[: len(PARTS)]),
        layer=entry.layer,
        unusable=entry.unusable,
        position=entry.position,
        normalised=entry.normalised,
        sites=_sites(trait, entry.sites, arrays[names[-1]]) if entry.sites else (),
    )


def _sites(trait: str, entries: Sequence[SiteEntry], weights: Array) -> tuple[ProbeSite, ...]:
    if weights.ndim != 2 or len(weights) != len(entries):
        raise VectorError(f"{trait}: weights {weights.shape} do not fit {len(entries)} sites")
    pairs = zip(entries, weights, strict=True)
    return tuple(ProbeSite(weights=row, **_site_entry(entry)) for entry, row in pairs)
