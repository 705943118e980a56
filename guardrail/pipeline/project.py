"""Scores of one conversation at many layers, for inspection. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from guardrail.engines import Engine, ReadingEngine
from guardrail.errors import ConfigError
from guardrail.types import Message

if TYPE_CHECKING:
    from guardrail.policy.loading import ActivePolicies


def project(
    engine: Engine,
    policies: ActivePolicies,
    messages: Sequence[Message],
    traits: Sequence[str] | None,
    layers: Sequence[int] | str,
    position: Literal["last", "all"],
) -> NDArray[np.float32]:
    """[traits, layers] or, for position="all", [traits, layers, tokens]. Unusable layers are NaN.

    Raises ConfigError for an unknown trait or position, and if the engine gives no activations.
    """
    if not isinstance(engine, ReadingEngine):
        raise ConfigError("this engine gives no activations")
    if position not in ("last", "all"):
        raise ConfigError(f"position is `last` or `all`, not {position!r}")
    names = list(policies.vectors) if traits is None else list(traits)
    if unknown := [name for name in names if name not in policies.vectors]:
        raise ConfigError(f"unknown trait `{unknown[0]}`; known: {', '.join(policies.vectors)}")
    chosen = list(range(1, engine.fingerprint.layers + 1)) if isinstance(layers, str) else list(layers)
    states = engine.hidden_states(engine.render(messages), chosen, position)
    rows = [[_scores(policies, name, layer, states[layer]) for layer in chosen] for name in names]
    return np.asarray(rows, dtype=np.float32)


def _scores(
    policies: ActivePolicies, trait: str, layer: int, hidden: NDArray[np.float32]
) -> NDArray[np.float32]:
    vector = policies.vectors[trait]
    if not vector.usable(layer):
        return np.full(hidden.shape[:-1], np.nan, dtype=np.float32)
    raw = hidden @ vector.probe[layer] + vector.offset[layer]
    benign = policies.calibration.probes.get(trait, {}).get(layer) if policies.calibration else None
    return (raw - benign.mean) / benign.sd if benign else raw
