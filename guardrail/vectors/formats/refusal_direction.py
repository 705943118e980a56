"""The refusal-direction project's tensors: `direction.pt` [d_model], `mean_diffs.pt` [positions, L, d_model].

Both hold states before decoder blocks (resid_pre): their layer n, from 0, is the input of block n and
so our layer n; n = 0 is the embedding output. Positions count tokens from the end of the prompt, the last one
is -1. `direction_metadata.json` {"pos", "layer"}, beside the file or one folder above, says which was chosen.
Source: andyrdt/refusal_direction, pipeline/run_pipeline.py (arXiv 2406.11717).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import VectorError
from guardrail.files import json_text
from guardrail.types import Fingerprint
from guardrail.vectors.formats.directions import Directions, direction

METADATA = "direction_metadata.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The layer and the token (negative) that a file is about, if it does not say so itself."""

    layer: int | None = None
    token: int | None = None

    def or_of(self, path: Path) -> Place:
        """With what the project's metadata says for what is missing."""
        known = _metadata(path)
        layer = known.get("layer") if self.layer is None else self.layer
        return Place(layer=layer, token=known.get("pos") if self.token is None else self.token)

    def refuse(self) -> None:
        """Raises VectorError if a place is given for a file that has one direction for each layer."""
        if self != Place():
            raise VectorError("--layer and --token are for .pt tensors of one or three dimensions")


def from_tensor(values: NDArray[np.generic], path: Path, model: Fingerprint, asked: Place) -> Directions:
    """The directions of a tensor of one or three dimensions. Raises VectorError if the place is unknown."""
    place = asked.or_of(path)
    return _one(values, model, place) if values.ndim == 1 else _table(values, model, place)


def _one(values: NDArray[np.generic], model: Fingerprint, place: Place) -> Directions:
    if place.layer is None:
        raise VectorError(
            f"it holds one direction, and nothing says of which layer: give --layer, or {METADATA} beside it"
        )
    _check_layer(place.layer, model)
    rows = {place.layer: direction(values, model.d_model)}
    return Directions(rows, raw_last=True, layer=place.layer)


def _table(values: NDArray[np.generic], model: Fingerprint, place: Place) -> Directions:
    positions, layers, _ = values.shape
    if layers != model.layers:
        raise VectorError(f"the tensor has {layers} layers, but this model has {model.layers}")
    token = place.token if place.token is not None or positions > 1 else -1
    if token is None or not -positions <= token <= -1:
        raise VectorError(
            f"it holds {positions} positions, -{positions} to -1: give one with --token, not {token}"
        )
    rows = {n: direction(values[token, n], model.d_model) for n in range(layers)}
    if place.layer is not None:
        _check_layer(place.layer, model)
    return Directions(rows, layer=place.layer)


def _check_layer(layer: int, model: Fingerprint) -> None:
    if not 1 <= layer <= model.layers:
        raise VectorError(f"layer {layer} does not exist; layers are 1 to {model.layers}")


def _metadata(path: Path) -> Mapping[str, Any]:
    """What the project says of the direction it chose; nothing without the file."""
    for folder in (path.parent, path.parent.parent):
        file = folder / METADATA
        if file.is_file():
            return _checked(file)
    return {}


def _checked(file: Path) -> Mapping[str, int]:
    try:
        data = json_text.read(file)
    except ValueError as error:
        raise VectorError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), int) for key in ("pos", "layer")):
        raise VectorError(f"{file}: needs the whole numbers `pos` and `layer`")
    return {"pos": data["pos"], "layer": data["layer"]}
