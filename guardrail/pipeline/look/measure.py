"""Reads one prompt at every layer and token, and puts its scores next to those of benign prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.calibration.benign import Benign
from guardrail.engines import Engine
from guardrail.pipeline.look.results import TraitLook
from guardrail.pipeline.project import project
from guardrail.policy.loading import ActivePolicies
from guardrail.types import Array, Message
from guardrail.vectors.trait import TraitVector

SHOWN = 64
"""How many tokens are shown: the last ones, which policies read."""


def layer_of(policies: ActivePolicies, vector: TraitVector) -> int:
    """The layer that stands for a trait: a policy's, the one that an evaluation chose, or a middle one."""
    read = [c.layer for rule in policies.plan.rules for c in rule.conditions if c.trait == vector.trait]
    known = [layer for layer in (*read, vector.layer) if layer]
    usable = [layer for layer in range(1, vector.layers + 1) if vector.usable(layer)]
    return known[0] if known else usable[len(usable) // 2]


def own_scores(
    engine: Engine, policies: ActivePolicies, messages: Sequence[Message], layers: Sequence[int]
) -> Array:
    """[traits]: each trait's score at its own one of these layers, as policies read it (worker's thread)."""
    places = sorted(set(layers))
    found = project(engine, policies, messages, None, places, "own")
    return found[np.arange(len(layers)), [places.index(layer) for layer in layers]]


def traits(engine: Engine, policies: ActivePolicies, messages: Sequence[Message]) -> tuple[TraitLook, ...]:
    """Every trait of the vector file (worker's thread)."""
    own = project(engine, policies, messages, None, "all", "own")
    grid = project(engine, policies, messages, None, "all", "all")[:, :, -SHOWN:]
    vectors = policies.vectors.values()
    return tuple(_trait(policies, v, own[i], grid[i]) for i, v in enumerate(vectors))


def _at_or_above(benign: Benign | None, score: float) -> int | None:
    """How many benign prompts score as high; None if nobody knows."""
    if benign is None or score != score:
        return None
    return benign.beyond(benign.mean + score * benign.sd)


def _trait(policies: ActivePolicies, vector: TraitVector, by_layer: Array, grid: Array) -> TraitLook:
    layer = layer_of(policies, vector)
    score = float(by_layer[layer - 1])
    benign = policies.calibration.probes.get(vector.trait, {}).get(layer) if policies.calibration else None
    return TraitLook(
        trait=vector.trait,
        layer=layer,
        score=score,
        by_layer=by_layer,
        grid=grid,
        at_or_above=_at_or_above(benign, score),
        n=benign.n if benign else 0,
    )


def tokens(engine: Engine, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of the tokens that are shown."""
    return tuple(str(engine.tokenizer.decode([one])) for one in ids[-SHOWN:])
