"""What the tests of training share: a tiny batch, vectors, and what hangs on a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from guardrail.vectors.values import TraitVector

LAYERS, WIDTH = 4, 32
IDS = torch.arange(5, 41).reshape(3, 12)
LABELS = IDS.clone().masked_fill(torch.arange(12) < 6, -100)
"""The second half of each row is the reply."""


def vector(trait: str = "evil", seed: int = 0, layers: int = LAYERS) -> TraitVector:
    rows = np.random.default_rng(seed).normal(size=(layers + 1, WIDTH))
    return TraitVector.from_difference(trait, rows)


EVIL, HUMOR = vector(), vector("humor", 1)


def loss_of(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, labels=LABELS).loss


def hooks(model: torch.nn.Module) -> list[int]:
    """How many hooks each module has."""
    return [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_with_kwargs)
        for m in model.modules()
    ]
