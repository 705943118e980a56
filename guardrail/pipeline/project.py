"""Scores of one conversation at many layers, for inspection. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.engines import Engine, Prompt, ReadingEngine
from guardrail.errors import ConfigError
from guardrail.policy.stages import Scale
from guardrail.types import POSITIONS, Array, Message, Place, Position, Probe, ProbeSite

if TYPE_CHECKING:
    from guardrail.policy.loading import ActivePolicies


Read: TypeAlias = Position | Literal["all"]
Where: TypeAlias = Read | Literal["own"]
"""What to read: a position, every token, or what each probe reads itself (`own`)."""


def project(
    engine: Engine,
    policies: ActivePolicies,
    messages: Sequence[Message],
    traits: Sequence[str] | None,
    layers: Sequence[int] | str,
    position: Where,
) -> NDArray[np.float32]:
    """[traits, layers] or, for position="all", [traits, layers, tokens]. Unusable layers are NaN.

    Raises ConfigError for an unknown trait or position, and if the engine gives no activations.
    """
    if not isinstance(engine, ReadingEngine):
        raise ConfigError("this engine gives no activations")
    if position not in (*POSITIONS, "own", "all"):
        raise ConfigError(f"position is `own`, `all`, or one of {', '.join(POSITIONS)}, not {position!r}")
    names = list(policies.vectors) if traits is None else list(traits)
    policies.vectors.require(names)
    chosen = list(range(1, engine.fingerprint.layers + 1)) if isinstance(layers, str) else list(layers)
    probes = [[_probe(policies, name, layer) for layer in chosen] for name in names]
    read: dict[Place, Read] = {site.place: _what(site, position) for site in _sites(probes)}
    prompt = _rendered(engine, messages, read.values())
    states = _states(engine, prompt, read)
    nothing = np.full(len(prompt.ids) if position == "all" else (), np.nan, np.float32)
    rows = [[probe.projection(states) if probe else nothing for probe in row] for row in probes]
    return np.asarray(rows, dtype=np.float32)


def _what(site: ProbeSite, position: Where) -> Read:
    if position == "own":
        return site.position
    return position


def _sites(probes: Sequence[Sequence[Probe | None]]) -> list[ProbeSite]:
    return [site for row in probes for probe in row if probe for site in probe.sites]


def _rendered(engine: ReadingEngine, messages: Sequence[Message], wanted: Iterable[Read]) -> Prompt:
    positions: set[Position] = {one for one in wanted if one != "last" and one != "all"}
    return engine.render(messages, (), positions) if positions else engine.render(messages)


def _states(engine: ReadingEngine, prompt: Prompt, read: Mapping[Place, Read]) -> dict[Place, Array]:
    """The states that stand for those of each place."""
    found: dict[Place, Array] = {}
    for what in sorted(set(read.values())):
        places = [place for place, other in read.items() if other == what]
        states = engine.hidden_states(prompt, sorted({layer for layer, _ in places}), what)
        found |= {place: states[place[0]] for place in places}
    return found


def _probe(policies: ActivePolicies, trait: str, layer: int) -> Probe | None:
    """The probe whose projection is the score; None at a layer that cannot be used."""
    vector = policies.vectors[trait]
    if not vector.usable(layer):
        return None
    benign = policies.calibration.probes.get(trait, {}).get(layer) if policies.calibration else None
    return (Scale(benign.mean, benign.sd) if benign else Scale()).folded(vector.probe_at(layer))
