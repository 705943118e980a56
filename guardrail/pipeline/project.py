"""Scores of one conversation at many layers, for people who look. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrail.engines import Site
from guardrail.errors import ConfigError
from guardrail.policy.loading import ActivePolicies
from guardrail.types import Message


def project(
    engine: Any,
    loaded: ActivePolicies,
    messages: Sequence[Message],
    traits: Sequence[str] | None,
    layers: Sequence[int] | str,
    position: str,
) -> NDArray[np.float32]:
    """[traits, layers] or, for position="all", [traits, layers, tokens]. Unusable layers are NaN."""
    if position not in ("last", "all"):
        raise ConfigError(f"position is `last` or `all`, not {position!r}")
    names = list(loaded.vectors) if traits is None else list(traits)
    if unknown := [name for name in names if name not in loaded.vectors]:
        raise ConfigError(f"unknown trait `{unknown[0]}`; known: {', '.join(loaded.vectors)}")
    chosen = list(range(1, engine.fingerprint.layers + 1)) if isinstance(layers, str) else list(layers)
    ids, mask = engine.batch([engine.render(messages)])
    states = engine.activations.read(ids, mask, [Site(layer) for layer in chosen], position)
    rows = [[_scores(loaded, name, layer, states[Site(layer)]) for layer in chosen] for name in names]
    return np.asarray(rows, dtype=np.float32)


def _scores(loaded: ActivePolicies, trait: str, layer: int, states: Any) -> NDArray[np.float32]:
    vector = loaded.vectors[trait]
    hidden = states[0].float().cpu().numpy()
    if not vector.usable(layer):
        return np.full(hidden.shape[:-1], np.nan, dtype=np.float32)
    raw = hidden @ vector.probe[layer] + vector.offset[layer]
    benign = loaded.calibration.probes.get(trait, {}).get(layer) if loaded.calibration else None
    return (raw - benign.mean) / benign.sd if benign else raw
