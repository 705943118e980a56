"""The states of examples, read once at every layer where probes read them, and their projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from guardrail.errors import ModelError
from guardrail.evaluation.material import Example
from guardrail.policy.terms import projections
from guardrail.statistics.intervals import Numbers
from guardrail.types import Array, Place, Position
from guardrail.vectors.values import TraitVector


@dataclass(frozen=True, slots=True)
class Placed:
    """States by place: [n, d_model] at a layer and a position, of [n, L + 1, d_model] at each position."""

    states: Mapping[Position, Array] = field(repr=False)

    def __getitem__(self, place: Place) -> Array:
        layer, position = place
        return self.states[position][:, layer]


class Readout:
    """States [examples, L + 1, d_model] float32 by position: 4 bytes x (L + 1) x d_model per prompt in each.

    Raises ModelError if they are not finite; NaN means that there are no tool results.
    """

    def __init__(self, examples: Sequence[Example], states: Mapping[Position, Array]) -> None:
        self._rows = {id(example): i for i, example in enumerate(examples)}
        self._states, self._examples = states, tuple(examples)
        if not all(np.isfinite(found).all() for position, found in states.items() if position != "tool_mean"):
            raise ModelError("the model's states are not finite on these prompts")

    def states(self, examples: Sequence[Example], position: Position = "last") -> Array:
        """[n, L + 1, d_model] for these examples."""
        return self._states[position][[self._rows[id(example)] for example in examples]]

    def placed(self, examples: Sequence[Example]) -> Placed:
        """All that was read of these examples."""
        return Placed({position: self.states(examples, position) for position in self._states})

    def scores(self, examples: Sequence[Example], vector: TraitVector, layer: int) -> Numbers:
        """[n]: projections on a trait's probe at one layer."""
        return self.layers(examples, vector, [layer])[:, 0]

    def layers(self, examples: Sequence[Example], vector: TraitVector, layers: Sequence[int]) -> Numbers:
        """[n, layers]."""
        probes = [vector.probe_at(layer) for layer in layers]
        return projections(probes, self.placed(examples)).astype(np.float64)


def usable_layers(vector: TraitVector) -> list[int]:
    """The layers that policies may read."""
    return [layer for layer in range(1, vector.layers + 1) if vector.usable(layer)]
