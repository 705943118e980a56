"""Fits one read-out: a weighted sum over the states at one or more places of a model.

States are scaled to unit variance in each dimension, so that the few dimensions in which a model's states are
huge do not drown the others; the weights take the scaling in. Every source counts the same within its class,
and both classes count the same. The result is scaled to mean 0 and standard deviation 1 over the harmless
prompts that it was fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guardrail.extract.fit.folds import Numbers, Rows, Stratum, weights
from guardrail.plugins.protocols import Examples, LabelledMethod
from guardrail.types import Array, Place

LEAST_VARIANCE = 1e-3
"""Of a dimension, as a share of the mean variance; dimensions that hardly vary are not blown up."""
TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a probe may read, and how it is fitted. `places` are in the order of layers."""

    places: tuple[Place, ...]
    normalised: bool
    method: str
    penalty: float | None = None

    @property
    def label(self) -> str:
        """One line, for people."""
        read = " + ".join(f"{position} at layer {layer}" for layer, position in self.places)
        unit = ", unit norm" if self.normalised else ""
        return f"{read}{unit}; {self.method}{'' if self.penalty is None else f' {self.penalty:g}'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One trait to detect: labels [n] of all rows, and the strata of the rows that are labelled for it."""

    trait: str
    labels: NDArray[np.bool_] = field(repr=False)
    strata: tuple[Stratum, ...] = field(repr=False)

    def sides(self, rows: Rows) -> tuple[Rows, Rows]:
        """The rows with the trait, and those without it."""
        return rows[self.labels[rows]], rows[~self.labels[rows]]

    def sides_weights(self, rows: Rows) -> tuple[Numbers, Numbers]:
        """Their weights, which sum to 1 on either side."""
        positive, negative = self.sides(rows)
        return weights(self.strata, positive, True), weights(self.strata, negative, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """weights: [d_model] for each place. absent: what a place adds if there is nothing to read."""

    candidate: Candidate
    weights: tuple[Array, ...] = field(repr=False)
    absent: tuple[float, ...] = field(repr=False)
    offset: float

    def scores(self, states: Mapping[Place, Array]) -> Numbers:
        """[n]: the projections of states [n, d_model] at each place; rows of NaN have nothing to read."""
        found = self.offset
        for place, own, absent in zip(self.candidate.places, self.weights, self.absent, strict=True):
            rows = prepared(states[place], self.candidate.normalised)
            found = found + np.where(np.isnan(rows[:, 0]), absent, rows @ own)
        return np.asarray(found, np.float64)


def prepared(states: Array, normalised: bool) -> Array:
    """The states, divided by their Euclidean norm if asked."""
    if not normalised:
        return states
    return states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), TINY).astype(np.float32)


def fit_readout(
    states: Mapping[Place, Array], candidate: Candidate, method: LabelledMethod, task: Task, rows: Rows
) -> Readout:
    """Fit on these rows of the states, [n, d_model] at each place."""
    positive, negative = task.sides(rows)
    shares = task.sides_weights(rows)
    columns = [
        _Column.of(states[p], candidate.normalised, positive, negative, shares) for p in candidate.places
    ]
    joined = [
        np.concatenate(side, axis=1)
        for side in zip(*((c.positive, c.negative) for c in columns), strict=True)
    ]
    direction = method.direction(
        Examples(
            positive=joined[0],
            negative=joined[1],
            neutral=joined[1],
            states=np.concatenate(joined),
            scores=np.full(len(rows), np.nan, np.float32),
            positive_weights=shares[0].astype(np.float32),
            negative_weights=shares[1].astype(np.float32),
            penalty=candidate.penalty,
        )
    )
    benign = joined[1] @ direction.astype(np.float64)
    middle = shares[1] @ benign
    spread = max(float(np.sqrt(shares[1] @ (benign - middle) ** 2)), TINY)
    parts = np.split(direction / spread, len(columns))
    own = [(part / column.scale).astype(np.float32) for part, column in zip(parts, columns, strict=True)]
    absent = [float(column.benign @ w) for column, w in zip(columns, own, strict=True)]
    return Readout(candidate=candidate, weights=tuple(own), absent=tuple(absent), offset=-sum(absent))


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """The scaled states of one place on both sides, [n, d_model]; `benign`, `scale`: [d_model], unscaled."""

    positive: Array
    negative: Array
    benign: Array
    scale: Array

    @classmethod
    def of(
        cls, states: Array, normalised: bool, positive: Rows, negative: Rows, shares: tuple[Numbers, Numbers]
    ) -> _Column:
        sides = [prepared(states[rows], normalised) for rows in (positive, negative)]
        benign = _mean(sides[1], shares[1])
        # a prompt without tool results is like a harmless one: it says nothing either way
        filled = [np.where(np.isnan(side[:, :1]), benign, side) for side in sides]
        means = [_mean(side, share) for side, share in zip(filled, shares, strict=True)]
        middle = (means[0] + means[1]) / 2
        variance = sum(share @ (side - middle) ** 2 / 2 for side, share in zip(filled, shares, strict=True))
        scale = np.sqrt(variance + LEAST_VARIANCE * np.mean(variance) + TINY).astype(np.float32)
        scaled = [((side - middle) / scale).astype(np.float32) for side in filled]
        return cls(scaled[0], scaled[1], benign, scale)


def _mean(rows: Array, share: Numbers) -> Array:
    """The weighted mean over rows that have something to read."""
    there = ~np.isnan(rows[:, 0])
    return (share[there] @ rows[there] / max(share[there].sum(), TINY)).astype(np.float32)
