"""The measurements with each layer's vector: data types and their file format. Needs no model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from guardrail.errors import ConfigError
from guardrail.files import json_text
from guardrail.statistics.nulls import Null
from guardrail.vectors.provenance import LayerChoice
from guardrail.vectors.values import TraitVectors

FORMAT = "guardrail-layer-sweep"
_CLIP = 0.5
"""Half of a judge's step, so that a mean of 0 or 100 has finite log-odds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The measurements for one layer's vector. None means not measured; it never means 0.

    trait, coherence: mean judged scores, 0 to 100, of replies to plain questions with the vector added at
    this layer alone; trait_interval: 95 %, over questions. induce: the log-odds of the trait in them.
    ablation: the log-odds of the trait in replies to prompts that ask for it, with the direction removed at
    every layer. kl: nats, from the plain to the ablated next-token distribution on plain questions. auroc,
    d_prime: how well the probe separates prompts that ask for the trait from prompts that forbid it;
    auroc_interval: 95 %. `position`: the token, counted from the prompt's end, at which the vector was read,
    if a sweep compares several.
    """

    layer: int
    position: int | None = None
    trait: float | None = None
    trait_interval: tuple[float, float] | None = None
    coherence: float | None = None
    induce: float | None = None
    ablation: float | None = None
    kl: float | None = None
    auroc: float | None = None
    auroc_interval: tuple[float, float] | None = None
    d_prime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """What AUROCs rest on: how many prompts ask for the trait and forbid it, and the best layer of chance.

    `null`: the best AUROC of all layers if labels are shuffled.
    """

    asking: int
    forbidding: int
    null: Null


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The candidates for one trait in a model with `layers` decoder blocks.

    `coefficient`: the multiple of each layer's own vector that was added, the same at all layers.
    `baseline`: the same measurements without a vector (its layer is 0). `origin`: the source of the numbers.
    """

    trait: str
    layers: int
    candidates: tuple[Candidate, ...]
    coefficient: float = 1.0
    baseline: Candidate | None = None
    judge: str | None = None
    replies: int | None = None
    """The number of replies per candidate and measurement."""
    origin: str = "guardrail"
    separation: Separation | None = None
    """None in sweeps of older versions, and in published ones."""

    def __post_init__(self) -> None:
        places = [(candidate.layer, candidate.position) for candidate in self.candidates]
        if len(set(places)) < len(places):
            raise ConfigError("a sweep must have only one candidate per layer and position")
        if outside := [layer for layer, _ in places if not 1 <= layer <= self.layers]:
            raise ConfigError(f"layer {outside[0]} does not exist in a model with {self.layers} layers")

    @property
    def sha256(self) -> str:
        """Identifies the measurements."""
        return hashlib.sha256(json.dumps(_content(self), sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write JSON."""
        data = {"format": FORMAT, "version": 1, **_content(self)}
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Self:
        """Read the data that `save` writes. Raises ConfigError for anything else."""
        if data.get("format") != FORMAT or data.get("version") != 1:
            raise ConfigError("not a layer sweep of version 1")
        try:
            known = {key: value for key, value in data.items() if key not in ("format", "version")}
            return json_text.validated(cls, known)
        except ValueError as error:
            raise ConfigError(f"a damaged layer sweep: {error}") from error


def _content(sweep: Sweep) -> dict[str, object]:
    """As JSON. What older sweeps do not know is left out, so that their hashes stay the same."""
    content = asdict(sweep)
    rows = [content["baseline"] or {}, *content["candidates"]]
    newer = ((row, key) for row in rows for key in ("auroc_interval", "trait_interval"))
    for row, key in ((content, "separation"), *newer):
        if row.get(key) is None:
            row.pop(key, None)
    return content


def merged(*sweeps: Sweep) -> Sweep:
    """Merge different measurements of the same candidates. Raises ConfigError if the candidates differ."""
    first = max(sweeps, key=lambda sweep: sweep.judge is not None)
    for other in sweeps:
        if (other.trait, other.layers) != (first.trait, first.layers):
            raise ConfigError("sweeps of different traits or models cannot be merged")
    candidates = tuple(_joined(parts) for parts in zip(*(s.candidates for s in sweeps), strict=True))
    known = next((sweep.separation for sweep in sweeps if sweep.separation), None)
    baselines = [sweep.baseline for sweep in sweeps if sweep.baseline is not None]
    return Sweep(
        trait=first.trait,
        layers=first.layers,
        candidates=candidates,
        coefficient=first.coefficient,
        baseline=_joined(baselines) if baselines else None,
        judge=first.judge,
        replies=first.replies,
        separation=known,
    )


def _joined(parts: Sequence[Candidate]) -> Candidate:
    if len({part.layer for part in parts}) > 1:
        raise ConfigError("sweeps of different layers cannot be merged")
    known: dict[str, Any] = {}
    for part in parts:
        known |= {name: value for name, value in asdict(part).items() if value is not None}
    return Candidate(**known)


def log_odds(percent: float) -> float:
    """The log-odds of a judged mean, 0 to 100; 50 gives 0."""
    share = min(max(percent, _CLIP), 100 - _CLIP) / 100
    return math.log(share / (1 - share))


def with_layer(vectors: TraitVectors, trait: str, choice: LayerChoice) -> TraitVectors:
    """The same vectors with the layer for `layer: auto`, and how it was chosen.

    Their sha256 changes: calibrate afterwards. Raises ConfigError for an unknown trait, VectorError if the
    vector cannot be used at that layer.
    """
    vectors.require([trait])
    choices = {**vectors.provenance.layer_choices, trait: choice}
    changed = {**vectors.vectors, trait: replace(vectors[trait], layer=choice.layer)}
    return TraitVectors(changed, replace(vectors.provenance, layer_choices=choices))
