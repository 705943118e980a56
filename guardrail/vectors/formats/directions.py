"""The common form of imported vector files: one direction per layer, for some layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import VectorError
from guardrail.types import Array, Fingerprint
from guardrail.vectors.values import TraitVector, unit


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """Directions [d_model] float32 by layer (1-based; 0 is the embedding output).

    `raw_last`: whether the last layer's direction was read from that block's own output. The tools whose
    files are read here use `hidden_states[L]` of transformers instead, which follows the final norm.
    """

    rows: Mapping[int, Array] = field(repr=False)
    raw_last: bool = False
    layer: int | None = None
    """The layer that the file's own project chose, if it says so."""


def by_layer(
    numbered: Mapping[int, NDArray[np.generic]], model: Fingerprint, first_block: int
) -> dict[int, Array]:
    """Convert directions from the file's block numbers to layers.

    Raises VectorError for blocks that the model does not have, wrong shapes and values that are not floats.
    """
    if not numbered:
        raise VectorError("the file contains no direction")
    layers = {number: number - first_block + 1 for number in numbered}
    outside = [number for number, layer in layers.items() if not 1 <= layer <= model.layers]
    if outside:
        raise VectorError(
            f"block {outside[0]} would be layer {layers[outside[0]]} of a model with {model.layers} layers, "
            f"counting blocks from {first_block}; is it another model, or are blocks counted from "
            f"{1 - first_block}?"
        )
    return {layers[number]: direction(row, model.d_model) for number, row in numbered.items()}


def direction(row: NDArray[np.generic], d_model: int) -> Array:
    """One row as float32. Raises VectorError for a wrong shape or type, and for NaN and infinity."""
    if row.dtype.kind != "f":
        raise VectorError(f"directions have the type {row.dtype}; only floats can be read")
    if row.shape != (d_model,):
        raise VectorError(f"a direction has shape {list(row.shape)}, but the model's width is {d_model}")
    with np.errstate(over="ignore"):  # values too large for float32 become infinite
        single = np.array(row, dtype=np.float32)
    if not np.isfinite(single).all():
        raise VectorError("a direction contains NaN or infinite numbers")
    return single


def assembled(trait: str, found: Directions, model: Fingerprint) -> TraitVector:
    """A trait vector whose probe is its unit direction; layers that the file lacks are unusable."""
    steering = np.zeros((model.layers + 1, model.d_model), np.float32)
    for layer, row in found.rows.items():
        steering[layer] = row
    missing = {layer for layer in range(1, model.layers + 1) if layer not in found.rows}
    unusable = missing if found.raw_last else missing | {model.layers}
    if len(unusable) == model.layers:
        raise VectorError("no layer of the file can be used")
    offset = np.zeros(model.layers + 1, np.float32)
    unused = tuple(sorted(unusable))
    return TraitVector(trait, steering, unit(steering), offset, layer=found.layer, unusable=unused)
