"""The states of examples, read once at the last prompt token of every layer, and their projections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.errors import ModelError
from guardrail.evaluation.material import Example
from guardrail.statistics.intervals import Numbers
from guardrail.types import Array
from guardrail.vectors.values import TraitVector


class Readout:
    """States [examples, L + 1, d_model] float32: 4 bytes x (L + 1) x d_model per prompt.

    Raises ModelError if they are not finite.
    """

    def __init__(self, examples: Sequence[Example], states: Array) -> None:
        self._rows = {id(example): i for i, example in enumerate(examples)}
        self._states, self._examples = states, tuple(examples)
        if not np.isfinite(states).all():
            raise ModelError("the model's states are not finite on these prompts")

    def states(self, examples: Sequence[Example]) -> Array:
        """[n, L + 1, d_model] for these examples."""
        return self._states[[self._rows[id(example)] for example in examples]]

    def scores(self, examples: Sequence[Example], vector: TraitVector, layer: int) -> Numbers:
        """[n]: projections on a trait's probe at one layer."""
        return self.layers(examples, vector, [layer])[:, 0]

    def layers(self, examples: Sequence[Example], vector: TraitVector, layers: Sequence[int]) -> Numbers:
        """[n, layers]."""
        rows = self._states[[self._rows[id(example)] for example in examples]][:, list(layers)]
        found = np.einsum("nld,ld->nl", rows, vector.probe[list(layers)]) + vector.offset[list(layers)]
        return found.astype(np.float64)


def usable_layers(vector: TraitVector) -> list[int]:
    """The layers that policies may read."""
    return [layer for layer in range(1, vector.layers + 1) if vector.usable(layer)]
