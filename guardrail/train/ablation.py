"""Concept ablation finetuning, CAFT (Casademunt et al. 2025; as in Chen et al. 2025, arXiv 2507.21509, J.4).

In every training pass h <- h - Q Q' h, where the columns of Q span the unit trait vectors of the layer: the
model is trained as if it could not represent the traits. There is no coefficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardrail.train.intervention import Applied, ModelIntervention
from guardrail.train.steering import Vectors, check_sizes, digest, several, usable_layers
from guardrail.types import Array
from guardrail.vectors.values import TraitVector, unit


class ConceptAblation(ModelIntervention):
    """Takes trait directions out of the residual stream in training passes, at all positions.

    layers: None for all that the vectors have (1-based). Call `backward` inside the block, where
    checkpointing up to transformers 5.19 needs the hooks. Raises VectorError for layers that vectors lack.
    """

    kind = "concept ablation"

    def __init__(self, model: Any, vectors: Vectors, layers: Sequence[int] | None = None) -> None:
        self.vectors = several(vectors)
        super().__init__(model, usable_layers(self.vectors, layers))
        self._bases = {layer: torch.from_numpy(basis(self.vectors, layer)) for layer in self.layers}

    def begin(self, model: Any) -> None:
        """Raises ModelError if the vectors are for a model of another size."""
        check_sizes(self.vectors, model)

    def changed(self, layer: int, hidden: Tensor) -> Tensor:
        """hidden [rows, tokens, d_model] without its part along the directions, computed in float32."""
        directions = self._bases[layer] = self._bases[layer].to(hidden.device)
        # autocast would round the projections to 8 bits
        with torch.autocast(hidden.device.type, enabled=False):
            inside = (hidden.float() @ directions.T) @ directions
            return hidden - inside.to(hidden.dtype)

    @property
    def applied(self) -> Applied:
        """What has been done so far."""
        return replace(
            super().applied,
            traits=tuple(vector.trait for vector in self.vectors),
            digest=digest(self._bases.values()),
        )


def basis(vectors: Sequence[TraitVector], layer: int) -> Array:
    """[k, d_model] float32: orthonormal directions that span the trait vectors of a layer."""
    rows = np.stack([unit(vector.steering[layer]) for vector in vectors]).astype(np.float64)
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    return directions[sizes > sizes[0] * 1e-6].astype(np.float32)
