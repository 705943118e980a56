"""Weights that were converted when they were loaded: which file they are from, and which still are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from guardrail.engines.transformers.weights import origins, sampled

MARK = "_weights_origin"


@dataclass(frozen=True, slots=True)
class Origin:
    """The identity of a file, and a few values of each tensor as it was loaded. It stays with the model."""

    identity: str
    values: Mapping[str, Tensor]

    @classmethod
    def remember(cls, identity: str, model: Any) -> Self:
        """For a model that was loaded just now."""
        held = {name: tensor for name, tensor in model.state_dict().items() if tensor.device.type != "meta"}
        origin = cls(identity, {name: sampled(tensor).clone() for name, tensor in held.items()})
        model.__dict__[MARK] = origin
        return origin

    @staticmethod
    def of(model: Any) -> Origin | None:
        """What is remembered of a model."""
        return model.__dict__.get(MARK)

    def unexplained(self, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors in memory, by name, that were not loaded or have changed since, in whatever dtype."""
        names = frozenset(self.values)
        return {
            name: tensor
            for name, tensor in held.items()
            if tensor.device.type != "meta"
            and not any(_same(self.values[found], tensor) for found in origins(name, names))
        }


def _same(values: Tensor, tensor: Tensor) -> bool:
    return torch.equal(values.to(tensor.dtype).float(), sampled(tensor))
