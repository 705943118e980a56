"""Fits a probe at every layer from the prompts' last-token states and judged scores.

A probe reads the last prompt token, as the guard does. Its offset puts 0 at the mean of the neutral prompts,
and its weights have unit length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guardrail.extract.prompts import Kind, RolloutPrompt
from guardrail.plugins.protocols import Examples, ExtractionMethod
from guardrail.statistics.metrics import areas
from guardrail.types import Array
from guardrail.vectors.values import unit

NO_SCORES: Mapping[str, Array] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Prompts of one trait, or of none: their states [L + 1, n, d_model], and mean scores [n] by trait."""

    trait: str | None
    prompts: Sequence[RolloutPrompt] = field(repr=False)
    states: Array = field(repr=False)
    scores: Mapping[str, Array] = field(repr=False, default_factory=lambda: NO_SCORES)

    def rows(self, kind: Kind) -> NDArray[np.intp]:
        """The prompts of one kind, ordered by instruction and question."""
        found = [i for i, prompt in enumerate(self.prompts) if prompt.kind == kind]
        found.sort(key=lambda i: (self.prompts[i].instruction, self.prompts[i].question))
        return np.array(found, dtype=np.intp)

    def at(self, layer: int, kind: Kind) -> Array:
        """[n, d_model]."""
        return np.asarray(self.states[layer][self.rows(kind)])

    def scored(self, trait: str) -> Array:
        """[n]: NaN if the prompts were not judged for this trait."""
        return self.scores.get(trait, np.full(len(self.prompts), np.nan, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """probe: [L + 1, d_model], unit rows, row 0 zero. offset: [L + 1]."""

    probe: Array
    offset: Array


def fit_probe(method: ExtractionMethod, trait: str, pools: Sequence[Pool]) -> Fitted:
    """Fit one layer at a time. Row 0 is skipped: there the last token is the same in every prompt."""
    count, _, d_model = pools[0].states.shape
    probe = np.zeros((count, d_model), np.float32)
    for layer in range(1, count):
        probe[layer] = method.direction(examples(trait, pools, layer))
    return Fitted(probe=unit(probe), offset=centring(unit(probe), pools))


def centring(probe: Array, pools: Sequence[Pool]) -> Array:
    """[L + 1] float32: the offsets that put the mean of all neutral prompts at 0."""
    means = [
        np.concatenate([pool.at(layer, "neutral") for pool in pools]).mean(axis=0, dtype=np.float64)
        for layer in range(len(probe))
    ]
    return -np.einsum("ld,ld->l", probe, np.stack(means)).astype(np.float32)


def examples(trait: str, pools: Sequence[Pool], layer: int) -> Examples:
    """The input of a method for a trait at a layer."""
    (own,) = [pool for pool in pools if pool.trait == trait]
    others = [pool for pool in pools if pool.trait not in (trait, None)]
    return Examples(
        positive=own.at(layer, "positive"),
        negative=own.at(layer, "negative"),
        neutral=np.concatenate([pool.at(layer, "neutral") for pool in pools]),
        others=tuple(pool.at(layer, "positive") for pool in others),
        states=np.concatenate([pool.states[layer] for pool in pools]),
        scores=np.concatenate([pool.scored(trait) for pool in pools]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """AUROC at layers 1 to L, by condition: `own` against neutral and forbidding prompts, `others` against
    prompts that ask for other traits (empty if there are none)."""

    own: tuple[float, ...]
    others: tuple[float, ...]


def separation(directions: Array, trait: str, pools: Sequence[Pool]) -> Separation:
    """How well directions [L + 1, d_model] separate prompts that no direction was made from."""
    (own,) = [pool for pool in pools if pool.trait == trait]
    rest = [pool for pool in pools if pool.trait not in (trait, None)]
    plain, other = list[float](), list[float]()
    for layer in range(1, len(directions)):
        w = directions[layer]
        positive = own.at(layer, "positive") @ w
        ground = [own.at(layer, "negative"), *(pool.at(layer, "neutral") for pool in pools)]
        plain.append(_area(positive, np.concatenate(ground) @ w))
        if rest:
            strong = np.concatenate([pool.at(layer, "positive") for pool in rest])
            other.append(_area(positive, strong @ w))
    return Separation(own=tuple(plain), others=tuple(other))


def _area(positive: Array, negative: Array) -> float:
    return round(float(areas(positive[:, None], negative[:, None])[0]), 4)
