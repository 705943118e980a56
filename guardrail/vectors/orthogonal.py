"""Symmetric orthogonalisation of trait directions at each layer (Löwdin 1950).

U' = (U U')^(-1/2) U for unit rows U [traits, d_model] gives the nearest orthonormal set, so no trait takes
precedence. Each vector keeps its length. What the traits share is lost; the cosine with the original vector
shows how much.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from guardrail.errors import VectorError
from guardrail.types import Array

LEAST = 1e-6


def orthogonalised(differences: Mapping[str, Array]) -> dict[str, Array]:
    """[L + 1, d_model] for each trait. Raises VectorError if directions are nearly dependent."""
    names = list(differences)
    rows = np.stack([differences[name] for name in names], axis=1).astype(np.float64)
    found = np.stack([_orthogonalised_layer(layer, names, one) for layer, one in enumerate(rows)], axis=1)
    return {name: found[i].astype(np.float32) for i, name in enumerate(names)}


def _orthogonalised_layer(layer: int, names: list[str], rows: np.ndarray) -> np.ndarray:
    """[traits, d_model]; a zero row stays zero (the embedding output, which is the same for all prompts)."""
    norms = np.linalg.norm(rows, axis=1)
    result, there = rows.copy(), norms > 0
    if there.sum() < 2:
        return result
    directions = rows[there] / norms[there, None]
    values, vectors = np.linalg.eigh(directions @ directions.T)
    if values[0] < LEAST:
        raise VectorError(
            f"the directions of {', '.join(names)} are linearly dependent at layer {layer}: "
            "they cannot be made orthogonal"
        )
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    result[there] = norms[there, None] * (root @ directions)
    return result
