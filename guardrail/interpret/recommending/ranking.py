"""Joins what is known of each layer into a recommendation, and says where it disagrees.

A layer is as good as its weakest evidence: each one is a share of what that evidence reaches at its best
layer, so 1 is the best layer of all three. The layer that `layer: auto` means stays unless another is clearly
better. Ties go to the earlier layer, at which stopping costs less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np

from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.extract.layers.selection import FLOOR
from guardrail.interpret.patching.pairs import counted
from guardrail.interpret.recommending.causes import Causes
from guardrail.statistics.correlation import spearman
from guardrail.statistics.intervals import Estimate, clustered_mean, difference

Evidence: TypeAlias = Literal["causal", "separation", "steering"]
EVIDENCE: tuple[Evidence, ...] = ("causal", "separation", "steering")
CHANCE = Estimate(0.5, 0.5, 0.5)
"""The AUROC of a probe that knows nothing."""
LEAST_RISE = 5.0
"""Points, of 100, by which the judged trait must rise for steering to say anything."""
CLEARLY = 0.9
"""The current layer stays if its weakest evidence has at least this share of the best layer's."""
AGREES = 0.5
"""Evidence agrees to a layer that reaches at least this share of its best layer's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is known of one layer. None: not measured.

    sufficient, needed: effects along the trait vector at the last prompt token and after. separation: AUROC.
    steering: the judged trait score with the vector added, and its 95 % interval over questions (sweeps of
    older versions have none); no evidence if replies are not coherent. shares: by evidence, of its best
    layer, 0 to 1.
    """

    layer: int
    sufficient: Estimate | None
    needed: Estimate | None
    separation: float | None
    steering: float | None
    steering_interval: tuple[float, float] | None
    coherent: bool
    shares: Mapping[Evidence, float]

    @property
    def weakest(self) -> float:
        """The least share."""
        return min(self.shares.values(), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The layer for one trait; None if no evidence found anything.

    best: each evidence's own best layer. unsteered: the judged trait score without the vector. silent:
    evidence that says nothing, and why. disagreeing: evidence that reaches less than half of its best at the
    recommended layer. correlations: Spearman's, over layers.
    """

    trait: str
    current: int | None
    layer: int | None
    layers: tuple[Layer, ...]
    best: Mapping[Evidence, int]
    silent: Mapping[Evidence, str]
    unsteered: float | None
    unsteered_interval: tuple[float, float] | None
    disagreeing: tuple[Evidence, ...]
    correlations: Mapping[str, float]
    contrasts: int
    left_out: Mapping[str, int]

    @property
    def at(self) -> Layer | None:
        """What is known of the recommended layer."""
        return next((one for one in self.layers if one.layer == self.layer), None)


@dataclass(frozen=True, slots=True)
class _Measured:
    """One evidence: how much it finds at each layer, beyond what is nothing; or why it says nothing."""

    values: Mapping[int, float]
    silent: str = ""

    def shares(self) -> dict[int, float]:
        top = max(self.values.values(), default=0.0)
        return {layer: min(max(value / top, 0.0), 1.0) for layer, value in self.values.items()}


def recommended(trait: str, current: int | None, causes: Causes, sweep: Sweep) -> Recommendation:
    """Join the effects of contrasts with a sweep over the layers. current: what `layer: auto` means now."""
    effects = _effects(causes, causes.sufficient)
    found: dict[Evidence, _Measured] = {
        "causal": _causal(effects),
        "separation": _separation(sweep),
        "steering": _steering(sweep),
    }
    speaking: dict[Evidence, _Measured] = {name: one for name, one in found.items() if not one.silent}
    layers = _layers(effects, _effects(causes, causes.needed), sweep, speaking)
    chosen = _chosen(layers, current) if speaking else None
    return Recommendation(
        trait=trait,
        current=current,
        layer=chosen.layer if chosen else None,
        layers=layers,
        best={
            name: max(one.values, key=lambda n, v=one.values: (v[n], -n)) for name, one in speaking.items()
        },
        unsteered=sweep.baseline.trait if sweep.baseline else None,
        unsteered_interval=sweep.baseline.trait_interval if sweep.baseline else None,
        silent={name: one.silent for name, one in found.items() if one.silent},
        disagreeing=tuple(n for n, share in chosen.shares.items() if share < AGREES) if chosen else (),
        correlations=_correlations(speaking),
        contrasts=len(causes),
        left_out=counted(causes.rejects),
    )


def _chosen(layers: Sequence[Layer], current: int | None) -> Layer | None:
    """The layer with the strongest weakest evidence; if none has a part of all, the largest mean."""
    best = max(
        layers,
        key=lambda one: (one.weakest, np.mean(list(one.shares.values())), -one.layer),
        default=None,
    )
    own = next((one for one in layers if one.layer == current), None)
    return own if best and own and own.weakest >= CLEARLY * best.weakest > 0 else best


def _effects(causes: Causes, values: np.ndarray) -> dict[int, Estimate]:
    """By layer; none with fewer than two groups of contrasts."""
    columns = range(values.shape[1]) if len(causes) else ()
    means = {
        n + 1: clustered_mean(values[:, n], causes.groups)
        for n in columns
        if not np.isnan(values[:, n]).any()
    }
    return {layer: one for layer, one in means.items() if one is not None}


def _causal(effects: Mapping[int, Estimate]) -> _Measured:
    if not effects:
        return _Measured({}, "too few contrasts in which the trait changes the reply")
    if all(one.low <= 0 for one in effects.values()):
        return _Measured({}, "no layer is shown to change replies along the trait vector")
    return _Measured({layer: _shown(one) for layer, one in effects.items()})


def _separation(sweep: Sweep) -> _Measured:
    found = {c.layer: _estimate(c.auroc, c.auroc_interval) for c in sweep.candidates if c.auroc is not None}
    if not found:
        return _Measured({}, "not measured")
    values = {layer: _shown(difference(one, CHANCE)) for layer, one in found.items()}
    silent = "" if max(values.values()) > 0 else "no layer is shown to separate better than chance"
    return _Measured(values, silent)


def _steering(sweep: Sweep) -> _Measured:
    base = sweep.baseline
    if base is None or base.trait is None or all(c.trait is None for c in sweep.candidates):
        return _Measured({}, "not measured: it needs --judge, or the --sweep of `vectors layers`")
    unsteered = _estimate(base.trait, base.trait_interval)
    values = {
        c.layer: _shown(difference(_estimate(c.trait, c.trait_interval), unsteered))
        for c in sweep.candidates
        if c.trait is not None and _coherent(c)
    }
    if max(values.values(), default=0.0) < LEAST_RISE:
        return _Measured(
            {}, f"no layer is shown to raise the trait by {LEAST_RISE:g} points in coherent replies"
        )
    return _Measured(values)


def _shown(one: Estimate) -> float:
    """The value; 0 if it may be none, because that is no evidence for its layer, however large."""
    return one.value if one.low > 0 else 0.0


def _estimate(value: float, interval: tuple[float, float] | None) -> Estimate:
    """Sweeps of older versions have no intervals: there a number counts as it is."""
    return Estimate(value, *(interval or (value, value)))


def _coherent(candidate: Candidate) -> bool:
    return candidate.coherence is None or candidate.coherence >= FLOOR


def _layers(
    sufficient: Mapping[int, Estimate],
    needed: Mapping[int, Estimate],
    sweep: Sweep,
    speaking: Mapping[Evidence, _Measured],
) -> tuple[Layer, ...]:
    shares: dict[Evidence, dict[int, float]] = {name: one.shares() for name, one in speaking.items()}
    return tuple(
        Layer(
            layer=c.layer,
            sufficient=sufficient.get(c.layer),
            needed=needed.get(c.layer),
            separation=c.auroc,
            steering=c.trait,
            steering_interval=c.trait_interval,
            coherent=_coherent(c),
            shares={name: known.get(c.layer, 0.0) for name, known in shares.items()},
        )
        for c in sweep.candidates
    )


def _correlations(speaking: Mapping[Evidence, _Measured]) -> dict[str, float]:
    found: dict[str, float] = {}
    for first, second in combinations(speaking, 2):
        a, b = speaking[first].values, speaking[second].values
        common = sorted(a.keys() & b.keys())
        rank = spearman([a[n] for n in common], [b[n] for n in common])
        if rank is not None:
            found[f"{first} and {second}"] = rank
    return found
