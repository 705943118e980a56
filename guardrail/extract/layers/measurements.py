"""What was measured with the vector of each layer, as a value that saves and loads. Knows no model."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from guardrail.errors import ConfigError
from guardrail.vectors.provenance import LayerChoice
from guardrail.vectors.values import TraitVectors

FORMAT = "guardrail-layer-sweep"
_CLIP = 0.5
"""Half of a judge's step: a mean of 0 or 100 has no infinite log-odds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One layer's vector, tried out. None is what was not measured, never 0.

    trait, coherence: mean judged scores, 0 to 100, of replies to plain questions with the vector added at
    this layer alone. induce: the log-odds of the trait in them. ablation: the log-odds of the trait in
    replies to prompts that ask for it, with the direction taken out at every layer. kl: nats, from the plain
    to that ablated next-token distribution on plain questions. auroc, d_prime: how well the probe separates
    prompts that ask for the trait from prompts that forbid it. `position`: the token, counted from the
    prompt's end, that the vector was read from, where a sweep compares several.
    """

    layer: int
    position: int | None = None
    trait: float | None = None
    coherence: float | None = None
    induce: float | None = None
    ablation: float | None = None
    kl: float | None = None
    auroc: float | None = None
    d_prime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The candidates of one trait in a model of `layers` decoder blocks.

    `coefficient`: the multiple of each layer's own vector that was added, the same at all layers.
    `baseline`: the same measurements without a vector (its layer is 0). `origin`: who measured.
    """

    trait: str
    layers: int
    candidates: tuple[Candidate, ...]
    coefficient: float = 1.0
    baseline: Candidate | None = None
    judge: str | None = None
    replies: int | None = None
    """Replies for each candidate and measurement."""
    origin: str = "guardrail"

    def __post_init__(self) -> None:
        places = [(candidate.layer, candidate.position) for candidate in self.candidates]
        if len(set(places)) < len(places):
            raise ConfigError("a sweep holds one candidate for each layer and position, not two")
        if outside := [layer for layer, _ in places if not 1 <= layer <= self.layers]:
            raise ConfigError(f"layer {outside[0]} is none of a model with {self.layers} layers")

    @property
    def sha256(self) -> str:
        """Identifies what was measured."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write JSON."""
        data = {"format": FORMAT, "version": 1, **asdict(self)}
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Self:
        """Raises ConfigError for anything but what `save` writes."""
        if data.get("format") != FORMAT or data.get("version") != 1:
            raise ConfigError("not a layer sweep of version 1")
        try:
            known = {key: value for key, value in data.items() if key not in ("format", "version")}
            return TypeAdapter(cls).validate_python(known)
        except ValueError as error:
            raise ConfigError(f"a damaged layer sweep: {error}") from error


def log_odds(percent: float) -> float:
    """Of a judged mean, 0 to 100; 50 has 0."""
    share = min(max(percent, _CLIP), 100 - _CLIP) / 100
    return math.log(share / (1 - share))


def with_layer(vectors: TraitVectors, trait: str, choice: LayerChoice) -> TraitVectors:
    """The same vectors with the layer that `layer: auto` means, and how it was chosen.

    Their sha256 changes: calibrate afterwards. Raises ConfigError for an unknown trait, VectorError where
    the vector cannot be used at that layer.
    """
    if trait not in vectors:
        raise ConfigError(f"no trait {trait!r}; there are {', '.join(vectors)}")
    choices = {**vectors.provenance.layer_choices, trait: choice}
    changed = {**vectors.vectors, trait: replace(vectors[trait], layer=choice.layer)}
    return TraitVectors(changed, replace(vectors.provenance, layer_choices=choices))
