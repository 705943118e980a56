"""Directions from states, pure maths on numpy arrays: differences, orthogonalised ones, and linear probes.

States are [prompts, L + 1, d_model]; every result is [L + 1, d_model], one row for each layer.
"""

from collections.abc import Mapping

import numpy as np

from guardrail.types import Array
from guardrail.vectors import unit

SHRINKAGE = 0.1
RIDGE = 0.01


def difference(positive: Array, negative: Array) -> Array:
    """Mean of the states with a trait minus mean of those without."""
    return (positive.mean(axis=0, dtype=np.float64) - negative.mean(axis=0, dtype=np.float64)).astype(
        np.float32
    )


def orthogonalised(trait: str, differences: Mapping[str, Array]) -> Array:
    """One trait's differences without what they share with the other traits: v - Q Q' v at each layer."""
    others = np.stack([v for name, v in differences.items() if name != trait], axis=2).astype(np.float64)
    rows = []
    for vector, basis in zip(differences[trait].astype(np.float64), others, strict=True):
        q, _ = np.linalg.qr(basis)
        rows.append(vector - q @ (q.T @ vector))
    return np.stack(rows).astype(np.float32)


def discriminants(strong: Mapping[str, Array], benign: Array) -> dict[str, Array]:
    """Fisher's discriminant of each trait against benign prompts and the other traits, half and half."""
    centres = {name: x.mean(axis=0, dtype=np.float64) for name, x in strong.items()}
    ground = benign.mean(axis=0, dtype=np.float64)
    inverse = np.linalg.inv(_within([*strong.values(), benign]))
    result = {}
    for name, centre in centres.items():
        others = np.mean([c for other, c in centres.items() if other != name], axis=0)
        gap = centre - (ground + others) / 2
        result[name] = unit(np.einsum("lij,lj->li", inverse, gap).astype(np.float32))
    return result


def regressions(states: Array, scores: Mapping[str, Array]) -> dict[str, Array]:
    """Ridge regression of each trait's judged score on the states."""
    x = states.transpose(1, 0, 2).astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    gram = _shrunk(np.einsum("lni,lnj->lij", x, x) / x.shape[1], RIDGE)
    result = {}
    for name, y in scores.items():
        target = np.einsum("lni,n->li", x, y - y.mean()) / x.shape[1]
        result[name] = unit(np.linalg.solve(gram, target[..., None])[..., 0].astype(np.float32))
    return result


def _within(groups: list[Array]) -> Array:
    """[L + 1, d_model, d_model]: the covariance around each group's own mean."""
    centred = np.concatenate([g - g.mean(axis=0) for g in groups]).transpose(1, 0, 2).astype(np.float64)
    return _shrunk(np.einsum("lni,lnj->lij", centred, centred) / centred.shape[1], SHRINKAGE)


def _shrunk(covariance: Array, share: float) -> Array:
    size = covariance.shape[-1]
    level = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / size + 1e-9
    return (1 - share) * covariance + share * level * np.eye(size)
