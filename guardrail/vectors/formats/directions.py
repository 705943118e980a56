"""What every foreign vector file comes down to: one direction for each of some layers of ours."""

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
    """Directions [d_model] float32 by layer, 1-based as everywhere here; 0 is the embedding output.

    `raw_last`: the last layer's direction was read from that block's own output. The tools whose files are
    read here take it from `hidden_states[L]` of transformers, which follows the final norm.
    """

    rows: Mapping[int, Array] = field(repr=False)
    raw_last: bool = False


def by_layer(
    numbered: Mapping[int, NDArray[np.generic]], model: Fingerprint, first_block: int
) -> dict[int, Array]:
    """Directions under the file's block numbers to directions under our layers.

    Raises VectorError for blocks that the model does not have, wrong shapes and numbers that are not floats.
    """
    if not numbered:
        raise VectorError("there is no direction in it")
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
    """One row as float32. Raises VectorError for another shape or type, and for NaN and infinity."""
    if row.dtype.kind != "f":
        raise VectorError(f"directions are numbers of type {row.dtype}; only floats are read")
    if row.shape != (d_model,):
        raise VectorError(f"a direction has shape {list(row.shape)}, the model's width is {d_model}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        single = np.array(row, dtype=np.float32)
    if not np.isfinite(single).all():
        raise VectorError("a direction has NaN or infinite numbers")
    return single


def assembled(trait: str, found: Directions, model: Fingerprint) -> TraitVector:
    """A trait vector whose probe is its unit direction; layers that the file lacks are unusable."""
    steering = np.zeros((model.layers + 1, model.d_model), np.float32)
    for layer, row in found.rows.items():
        steering[layer] = row
    missing = {layer for layer in range(1, model.layers + 1) if layer not in found.rows}
    unusable = missing if found.raw_last else missing | {model.layers}
    if len(unusable) == model.layers:
        raise VectorError("no layer of it can be used")
    offset = np.zeros(model.layers + 1, np.float32)
    return TraitVector(trait, steering, unit(steering), offset, unusable=tuple(sorted(unusable)))
