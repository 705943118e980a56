"""Measures the trade-off of steering: trait, coherence and capability by coefficient, operator and layers.

`add`: multiples of the trait vector. `ablate`: the share of the projection to remove (1 is the guard's own,
2 mirrors it). `cap`: the benign percentile that limits the projection. Steering that adds a trait is tried on
neutral prompts, steering that removes it on prompts that ask for it. Layers: the chosen one, the chosen one
with its neighbours, or all (`add`: the increments v_l - v_(l-1), arXiv 2507.21509, J.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np

from guardrail.calibration.values import Calibration
from guardrail.errors import ConfigError
from guardrail.policy.steering import SpecError, build_steering
from guardrail.statistics.intervals import Estimate, mean, rate
from guardrail.types import Operator, Steering, SteerSpec
from guardrail.vectors.values import TraitVector

Span: TypeAlias = Literal["single", "several", "incremental"]
Prompts: TypeAlias = Literal["neutral", "asking"]
COEFFICIENTS: Mapping[Operator, tuple[float, ...]] = {
    "add": (-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0),
    "ablate": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    "cap": (99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 1.0),
}
COHERENT = 75.0
"""The mean coherence that steering must keep (arXiv 2507.21509, 3.2)."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Judged scores of replies; None means that the judge refused. capability: which answers were right."""

    trait: Sequence[float | None]
    coherence: Sequence[float | None]
    capability: Sequence[bool]


class Speaker(Protocol):
    """Generates replies under steering and has them judged."""

    def spoken(self, prompts: Prompts, steering: Sequence[Steering]) -> Spoken: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The results of one way of steering. `operator` None is the unsteered model."""

    trait: str
    prompts: Prompts
    operator: Operator | None
    span: Span | None
    layers: tuple[int, ...]
    coefficient: float
    expression: Estimate | None
    coherence: Estimate | None
    capability: Estimate | None
    unjudged: int

    @property
    def coherent(self) -> bool:
        """Whether replies are still coherent enough."""
        return self.coherence is not None and self.coherence.value >= COHERENT


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringSweep:
    """All points of all traits, the unsteered ones first."""

    points: tuple[Point, ...]
    replies: int
    notes: tuple[str, ...] = ()

    def of(self, trait: str) -> list[Point]:
        """One trait's points."""
        return [point for point in self.points if point.trait == trait]

    @property
    def traits(self) -> tuple[str, ...]:
        """The traits in the order of the sweep."""
        return tuple(dict.fromkeys(point.trait for point in self.points))

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        points = [asdict(point) | {"coherent": point.coherent} for point in self.points]
        return {"replies": self.replies, "points": points, "notes": self.notes}


Advance: TypeAlias = Callable[[], None]


def sweep(
    vectors: Mapping[str, TraitVector],
    layers: Mapping[str, int],
    speakers: Mapping[str, Speaker],
    calibration: Calibration | None,
    replies: int,
    advance: Advance = lambda: None,
) -> SteeringSweep:
    """Try every way of steering each trait. Raises ConfigError if there is no trait."""
    if not speakers:
        raise ConfigError("there is no trait to steer")
    points: list[Point] = []
    notes: list[str] = []
    for trait, speaker in speakers.items():
        ways, missing = ways_of(vectors[trait], layers[trait], calibration)
        notes += [f"{trait}: {text}" for text in missing]
        for prompts in get_args(Prompts):
            points.append(_point(trait, speaker, Way(prompts=prompts)))
        for way in ways:
            points.append(_point(trait, speaker, way))
            advance()
    return SteeringSweep(points=tuple(points), replies=replies, notes=tuple(notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of steering, ready to apply."""

    prompts: Prompts
    operator: Operator | None = None
    span: Span | None = None
    coefficient: float = 0.0
    steering: Steering | None = None


def ways_of(
    vector: TraitVector, layer: int, calibration: Calibration | None
) -> tuple[list[Way], tuple[str, ...]]:
    """Every operator x span x coefficient, and what is left out, with reasons."""
    found: list[Way] = []
    missing: dict[str, None] = {}
    for operator, coefficients in COEFFICIENTS.items():
        for span in get_args(Span):
            for coefficient in coefficients:
                try:
                    found.append(_way(vector, layer, calibration, operator, span, coefficient))
                except SpecError as error:
                    missing[f"no {operator}: {error}"] = None
    return found, tuple(missing)


def _way(
    vector: TraitVector,
    layer: int,
    calibration: Calibration | None,
    operator: Operator,
    span: Span,
    coefficient: float,
) -> Way:
    spec = SteerSpec(
        operator=operator,
        layers=_layers(vector, layer, operator, span),
        coefficient=coefficient if operator == "add" else 0.0,
        percentile=coefficient if operator == "cap" else None,
    )
    steering = build_steering(spec, "sweep", vector, layer, calibration)
    if operator == "ablate":
        # h - <h, s u> s u removes s^2 of the projection
        units = (steering.direction(i) for i in range(len(steering.layers)))
        scaled = tuple((np.sqrt(coefficient) * u).astype(np.float32) for u in units)
        steering = replace(steering, directions=scaled)
    adds = operator == "add" and coefficient > 0
    return Way(
        prompts="neutral" if adds else "asking",
        operator=operator,
        span=span,
        coefficient=coefficient,
        steering=steering,
    )


def _layers(
    vector: TraitVector, layer: int, operator: Operator, span: Span
) -> tuple[int, ...] | Literal["all", "incremental"]:
    if span == "single":
        return (layer,)
    if span == "several":
        return tuple(row for row in (layer - 1, layer, layer + 1) if vector.usable(row))
    return "incremental" if operator == "add" else "all"


def _point(trait: str, speaker: Speaker, way: Way) -> Point:
    found = speaker.spoken(way.prompts, [way.steering] if way.steering else [])
    return Point(
        trait=trait,
        prompts=way.prompts,
        operator=way.operator,
        span=way.span,
        layers=way.steering.layers if way.steering else (),
        coefficient=way.coefficient,
        expression=_mean(found.trait),
        coherence=_mean(found.coherence),
        capability=rate(found.capability) if found.capability else None,
        unjudged=sum(score is None for score in found.trait),
    )


def _mean(scores: Sequence[float | None]) -> Estimate | None:
    known = [score for score in scores if score is not None]
    return mean(known) if known else None
