"""Turns an action's request (SteerSpec) into directions and limits (Steering). Pure maths on vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.calibration.values import Calibration
from guardrail.types import Array, Steering, SteerSpec
from guardrail.vectors.values import FLOAT32_MAX, TraitVector, unit


class SpecError(ValueError):
    """The requested steering cannot be built from these vectors."""


def build_steering(
    spec: SteerSpec,
    policy: str,
    vector: TraitVector,
    layer: int,
    calibration: Calibration | None,
    floor: bool = False,
) -> Steering:
    """Resolve layers, directions and limits. Raises SpecError if the vectors do not support the request."""
    layers = steered_layers(spec, vector, layer)
    return Steering(
        policy=policy,
        trait=vector.trait,
        operator=spec.operator,
        layers=layers,
        directions=_directions(spec, vector, layers),
        limits=_limits(spec, vector, layers, calibration) if spec.operator == "cap" else (),
        floor=floor,
    )


def steered_layers(spec: SteerSpec, vector: TraitVector, layer: int) -> tuple[int, ...]:
    """The layers to steer, ascending. Raises SpecError if one is not usable."""
    if spec.layers is None:
        return (layer,)
    if spec.layers in ("all", "incremental"):
        return tuple(row for row in range(1, vector.layers + 1) if vector.usable(row))
    chosen = tuple(sorted(set(spec.layers)))
    if bad := [row for row in chosen if not vector.usable(row)]:
        raise SpecError(f"layer {bad[0]} cannot be steered; layers are 1 to {vector.layers}")
    return chosen


def _directions(spec: SteerSpec, vector: TraitVector, layers: Sequence[int]) -> tuple[Array, ...]:
    if spec.operator != "add":
        return tuple(unit(vector.steering[row]) for row in layers)
    rows = vector.incremental() if spec.layers == "incremental" else vector.steering
    with np.errstate(all="ignore"):  # a coefficient of its own may not fit either
        found = tuple((np.float32(spec.coefficient) * rows[row]).astype(rows.dtype) for row in layers)
    if not np.isfinite(found).all():
        raise SpecError(f"the `coefficient` {spec.coefficient:g} is out of range for this vector")
    return found


def _limits(
    spec: SteerSpec, vector: TraitVector, layers: Sequence[int], calibration: Calibration | None
) -> tuple[float, ...]:
    if spec.limit is not None and not abs(spec.limit) <= FLOAT32_MAX:
        raise SpecError(f"the limit {spec.limit:g} is out of range")
    if spec.limit is not None:
        return tuple(spec.limit for _ in layers)
    table = calibration.steering.get(vector.trait, {}) if calibration else {}
    if spec.percentile is None or any(row not in table for row in layers):
        raise SpecError("a cap at a percentile needs a calibration of every steered layer")
    return tuple(table[row].percentile(spec.percentile) for row in layers)


def recheck_layer(steering: Steering, vector: TraitVector) -> int:
    """The first usable layer above the steered ones, or the last usable one if there is none above."""
    above = [row for row in range(1, vector.layers + 1) if vector.usable(row) and row > steering.layers[-1]]
    return above[0] if above else steering.layers[-1]
