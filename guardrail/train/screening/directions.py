"""Which directions samples are projected on: unit steering vectors, one layer per trait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from guardrail.errors import ConfigError
from guardrail.types import Array
from guardrail.vectors.trait import TraitVector, unit
from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """A trait, a layer, and the unit steering vector there, [d_model] float32."""

    trait: str
    layer: int
    unit: Array = field(repr=False)


def directions(
    vectors: TraitVectors, traits: Sequence[str] | None = None, layers: Mapping[str, int] | int | None = None
) -> tuple[Direction, ...]:
    """The direction of each trait, of all traits by default.

    `layers`: one layer for all, or by trait; where it names none, the layer that the vector file chose.
    Raises ConfigError for unknown traits, and for layers that are unusable or nowhere named.
    """
    names = list(dict.fromkeys(traits or vectors))
    vectors.require(names)
    return tuple(_direction(vectors[name], layers) for name in names)


def _direction(vector: TraitVector, layers: Mapping[str, int] | int | None) -> Direction:
    given = layers.get(vector.trait) if isinstance(layers, Mapping) else layers
    layer = vector.layer if given is None else given
    if layer is None:
        raise ConfigError(
            f"no layer is chosen for `{vector.trait}`; name one, or run `guardrail vectors layers`"
        )
    if not vector.usable(layer):
        raise ConfigError(f"`{vector.trait}`: layer {layer} is not usable (1 to {vector.layers})")
    return Direction(vector.trait, layer, unit(np.asarray(vector.steering[layer])))
