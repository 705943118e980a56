"""Preventative steering (Chen et al. 2025, arXiv 2507.21509, 5.2 and J.3).

In every training pass h_l <- h_l + a v_l at the chosen layers and at all token positions, with a > 0. The
data then no longer has to move the model along the trait, and without steering the model does not show it.
`incremental` adds a (v_l - v_(l-1)) at every layer, with v_0 the difference of embeddings: without
nonlinearities the sum up to layer l is a (v_l - v_0).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from guardrail.engines.transformers.blocks import text_config, unwrapped
from guardrail.errors import ModelError, VectorError
from guardrail.policy.steering import SpecError, build_steering
from guardrail.train.intervention import Applied, ModelIntervention
from guardrail.train.passes import bare, blocks_of
from guardrail.types import SteerSpec
from guardrail.vectors.values import TraitVector

Vectors: TypeAlias = "TraitVector | Sequence[TraitVector] | Mapping[str, TraitVector]"
Layers: TypeAlias = "Literal['incremental'] | Sequence[int]"


class PreventativeSteering(ModelIntervention):
    """Adds trait vectors to the residual stream in training passes, as a context manager or a callback.

    vectors: one or several traits. coefficient: in multiples of the raw vector, for all traits or by trait;
    negative ones steer away from the trait while it is trained. layers: `incremental`, or layers (1-based) at
    which the layer's own vector is added. model: None for that of the trainer. Vectors get no gradient.
    Raises VectorError for layers and coefficients that these vectors do not have.
    """

    kind = "preventative steering"

    def __init__(
        self,
        model: Any,
        vectors: Vectors,
        coefficient: float | Mapping[str, float],
        layers: Layers = "incremental",
    ) -> None:
        self.vectors = several(vectors)
        self.coefficients = by_trait(coefficient, self.vectors)
        self._directions = _summed(self.vectors, self.coefficients, layers)
        self._ready: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}
        super().__init__(model, tuple(self._directions))

    def begin(self, model: Any) -> None:
        """Raises ModelError if the vectors are for a model of another size."""
        check_sizes(self.vectors, model)

    def changed(self, layer: int, hidden: Tensor) -> Tensor:
        """hidden [rows, tokens, d_model] plus the directions of all traits, in the type of `hidden`."""
        return hidden + self._direction(layer, hidden)

    def _direction(self, layer: int, like: Tensor) -> Tensor:
        key = layer, like.device, like.dtype
        if key not in self._ready:
            self._ready[key] = self._directions[layer].to(like.device, like.dtype)
        return self._ready[key]

    @property
    def applied(self) -> Applied:
        """What has been done so far."""
        return replace(
            super().applied,
            traits=tuple(self.coefficients),
            coefficients=tuple(self.coefficients.values()),
            digest=digest(self._directions.values()),
        )


def digest(rows: Iterable[Tensor]) -> str:
    """The SHA-256 of directions."""
    found = hashlib.sha256()
    for row in rows:
        found.update(row.cpu().numpy().tobytes())
    return found.hexdigest()


def several(vectors: Vectors) -> tuple[TraitVector, ...]:
    """The vectors of one or several traits. Raises VectorError if there are none, or two of one trait."""
    if isinstance(vectors, TraitVector):
        return (vectors,)
    found = tuple(vectors.values() if isinstance(vectors, Mapping) else vectors)
    names = [vector.trait for vector in found]
    if len(set(names)) < len(names) or not names:
        raise VectorError(f"one vector for each trait is needed, not {', '.join(names) or 'none'}")
    return found


def by_trait(coefficient: float | Mapping[str, float], vectors: Sequence[TraitVector]) -> dict[str, float]:
    """The coefficient of each trait. Raises VectorError for missing, unknown and non-finite ones."""
    names = [vector.trait for vector in vectors]
    given = dict(coefficient) if isinstance(coefficient, Mapping) else dict.fromkeys(names, coefficient)
    if set(given) != set(names):
        raise VectorError(f"coefficients of {', '.join(given)} do not fit vectors of {', '.join(names)}")
    if bad := [name for name in names if not isfinite(given[name])]:
        raise VectorError(f"{bad[0]}: the coefficient {given[bad[0]]} is not a finite number")
    return {name: float(given[name]) for name in names}


def check_sizes(vectors: Sequence[TraitVector], model: Any) -> None:
    """Raises ModelError if vectors do not have the model's number of layers."""
    count, width = len(blocks_of(model)), text_config(unwrapped(bare(model))).hidden_size
    for vector in vectors:
        if (vector.layers, vector.d_model) != (count, width):
            raise ModelError(
                f"the vectors of {vector.trait} are for {vector.layers} layers x {vector.d_model}, "
                f"this model has {count} x {width}"
            )


def usable_layers(vectors: Sequence[TraitVector], layers: Sequence[int] | None) -> tuple[int, ...]:
    """The given layers, or all that every vector has. Raises VectorError for ones that it does not have."""
    count = min(vector.layers for vector in vectors)
    wanted = tuple(layers) if layers is not None else tuple(range(1, count + 1))
    for vector in vectors:
        bad = [layer for layer in wanted if not vector.usable(layer)]
        if bad and layers is not None:
            raise VectorError(f"{vector.trait}: layer {bad[0]} cannot be used; layers are 1 to {count}")
        wanted = tuple(layer for layer in wanted if layer not in bad)
    return wanted


def _summed(
    vectors: Sequence[TraitVector], coefficients: Mapping[str, float], layers: Layers
) -> dict[int, Tensor]:
    """[d_model] float32 for each layer: what all traits together add."""
    found: dict[int, Tensor] = {}
    for vector in vectors:
        spec = SteerSpec(
            operator="add",
            layers="incremental" if layers == "incremental" else tuple(layers),
            coefficient=coefficients[vector.trait],
        )
        try:
            steering = build_steering(spec, "training", vector, 0, None)
        except SpecError as error:
            raise VectorError(f"{vector.trait}: {error}") from error
        for i, layer in enumerate(steering.layers):
            found[layer] = found.get(layer, 0) + torch.from_numpy(steering.direction(i))
    return found
