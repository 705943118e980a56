"""Which layers and heads carry a trait into replies: one table, over all traits.

The risk of a component is the share of a trait's effect on the reply that comes with its values alone, from 0
to 1; 0 as long as chance is not excluded. Shares do not add up: components act on each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.interpret.heads.results import Head
from guardrail.interpret.patching.patches import PARTS
from guardrail.interpret.recommending.causes import Causes
from guardrail.statistics.permutation import false_discovery, one_sample
from guardrail.types import Array

LEVEL = 0.05
"""The false-discovery rate over all components of a trait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a component does for one trait. effect: mean over groups of contrasts; q: adjusted p."""

    effect: float
    q: float

    @property
    def risk(self) -> float:
        """0 to 1."""
        return min(max(self.effect, 0.0), 1.0) if self.q < LEVEL else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """One layer's MLP or attention, or one of its heads (from 0), for each trait."""

    layer: int
    component: str
    head: int | None
    traits: Mapping[str, Effect]

    @property
    def risk(self) -> float:
        """The highest over all traits."""
        return max((one.risk for one in self.traits.values()), default=0.0)

    @property
    def name(self) -> str:
        """`layer 4 mlp`, or LAYER.HEAD as `interpret heads` writes it."""
        return (
            f"layer {self.layer} {self.component}" if self.head is None else str(Head(self.layer, self.head))
        )


def risks(found: Mapping[str, Causes]) -> tuple[Risk, ...]:
    """Every layer's parts and heads, by layer. Traits with fewer than two groups of contrasts have none."""
    effects = {trait: _effects(causes) for trait, causes in found.items() if len(set(causes.groups)) > 1}
    places = dict.fromkeys(place for one in effects.values() for place in one)
    return tuple(
        Risk(
            layer=layer,
            component=component,
            head=head,
            traits={trait: one[layer, component, head] for trait, one in effects.items()},
        )
        for layer, component, head in sorted(places, key=lambda p: (p[0], p[2] is not None, p[2] or 0, p[1]))
    )


def _effects(causes: Causes) -> dict[tuple[int, str, int | None], Effect]:
    count, layers, heads = causes.heads.shape
    table = np.concatenate([causes.parts.reshape(count, -1), causes.heads.reshape(count, -1)], axis=1)
    means = _by_group(table, causes.groups)
    q = false_discovery(one_sample(means))
    places = [(n + 1, part, None) for n in range(layers) for part in PARTS]
    places += [(n + 1, "head", head) for n in range(layers) for head in range(heads)]
    effects = zip(means.mean(axis=0), q, strict=True)
    return {
        place: Effect(effect=float(effect), q=float(one))
        for place, (effect, one) in zip(places, effects, strict=True)
    }


def _by_group(table: Array, groups: Sequence[str]) -> Array:
    """[groups, k]: contrasts of one group are not independent, so only their mean counts."""
    names = np.asarray(groups)
    return np.stack([table[names == name].mean(axis=0) for name in dict.fromkeys(groups)])


def strongest(found: Sequence[Risk], count: int) -> list[Risk]:
    """Those with the highest risk, the highest first; none without any."""
    shown = [one for one in found if one.risk]
    return sorted(shown, key=lambda one: (-one.risk, one.layer))[:count]
