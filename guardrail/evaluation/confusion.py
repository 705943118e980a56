"""Compares traits pairwise: which directions are similar, and which traits occur together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from guardrail.evaluation.material import Example
from guardrail.statistics.correlation import pearson
from guardrail.statistics.intervals import Numbers
from guardrail.vectors.values import TraitVector, TraitVectors, unit

Matrix = Mapping[str, Mapping[str, float | None]]


def cosines(vectors: TraitVectors, traits: Sequence[str], layers: Mapping[str, int]) -> Matrix:
    """Cosines between the probes (of a sum: the last site), at the layer of the trait in the row."""
    return {a: {b: _cosine(vectors[a], vectors[b], layers[a]) for b in traits} for a in traits}


def _cosine(one: TraitVector, other: TraitVector, layer: int) -> float:
    return float(unit(one.probe_at(layer).weights) @ unit(other.probe_at(layer).weights))


def steering_cosines(vectors: TraitVectors, traits: Sequence[str], layers: Mapping[str, int]) -> Matrix:
    """Cosines between the steering vectors, at the layer of the trait in the row."""
    return {a: {b: float(vectors[a].cosine(vectors[b])[layers[a]]) for b in traits} for a in traits}


def coexpression(examples: Sequence[Example], traits: Sequence[str]) -> Matrix | None:
    """r between the mean expressions of two traits, over the prompts that have both; None without any."""
    table = {
        t: [float(np.mean(e.expression[t])) if t in e.expression else np.nan for e in examples]
        for t in traits
    }
    found = {a: {b: _both(np.array(table[a]), np.array(table[b])) for b in traits} for a in traits}
    pairs = [found[a][b] for a in traits for b in traits if a != b]
    return found if any(value is not None for value in pairs) else None


def _both(first: Numbers, second: Numbers) -> float | None:
    known = np.isfinite(first) & np.isfinite(second)
    return pearson(first[known], second[known]) if known.sum() > 2 else None


def agreement(first: Matrix, second: Matrix | None) -> float | None:
    """r between the entries of two matrices off the diagonal; None with fewer than three pairs of traits."""
    if second is None:
        return None
    known = [
        (x, y)
        for a, row in first.items()
        for b, x in row.items()
        if a != b and x is not None and (y := second[a][b]) is not None
    ]
    return pearson(*np.array(known).T) if len(known) >= 6 else None
