"""Checks what plugins contribute: the right type, a unique name, usable numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from guardrail.errors import PluginError
from guardrail.plugins.protocols import Action
from guardrail.types import ALLOW, POSITIONS, Fingerprint, Probe, ProbeSite

T = TypeVar("T")


def gather(results: Iterable[tuple[str, Any]], kind: type[T], key: str = "name") -> Mapping[str, T]:
    """All contributions of one kind by name. Raises PluginError for a wrong type or a duplicate name."""
    found: dict[str, T] = {}
    owners: dict[str, str] = {}
    for plugin, contributed in results:
        for item in _sequence(plugin, contributed):
            name = _name(plugin, item, kind, key)
            if name in found:
                raise PluginError(
                    f"plugin `{plugin}`: {kind.__name__} `{name}` is already provided by `{owners[name]}`"
                )
            found[name], owners[name] = item, plugin
    return found


def _sequence(plugin: str, contributed: Any) -> Sequence[Any]:
    if contributed is None:
        return ()
    if not isinstance(contributed, list | tuple):
        raise PluginError(f"plugin `{plugin}` returned {type(contributed).__name__} instead of a list")
    return contributed  # pyright: ignore[reportUnknownVariableType]


def _name(plugin: str, item: object, kind: type, key: str) -> str:
    if isinstance(item, type) or not isinstance(item, kind):
        raise PluginError(f"plugin `{plugin}`: {item!r} is not a valid {kind.__name__}")
    name = getattr(item, key)
    if not isinstance(name, str) or not name:
        raise PluginError(f"plugin `{plugin}`: a {kind.__name__} has no name")
    return name


def engine_names(results: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """The names of engines, each once. Raises PluginError for what is not a name."""
    found: dict[str, None] = {}
    for plugin, contributed in results:
        for name in _sequence(plugin, contributed):
            if not isinstance(name, str) or not name:
                raise PluginError(f"plugin `{plugin}`: {name!r} is not the name of an engine")
            found[name] = None
    return tuple(found)


def check_action(action: Action) -> None:
    """Raises PluginError for a reserved name, an invalid strength or a Config that is not a model."""
    if action.name == ALLOW:
        raise PluginError("an action cannot be called `allow`")
    if isinstance(action.strength, bool) or not isinstance(action.strength, int) or action.strength <= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PluginError(f"action `{action.name}`: strength must be a whole number above 0 (allow)")
    if not (isinstance(action.Config, type) and issubclass(action.Config, BaseModel)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PluginError(f"action `{action.name}`: Config must be a pydantic model")


def check_probe(probe: Probe, fingerprint: Fingerprint) -> None:
    """Raises PluginError if the probe cannot be read on this model."""
    for site in probe.sites:
        _check_site(probe.trait, site, fingerprint)
    if any(site.layer > probe.layer for site in probe.earlier):
        raise PluginError(f"probe `{probe.trait}`: a site is above its layer {probe.layer}")
    if not np.isfinite(probe.offset):
        raise PluginError(f"probe `{probe.trait}`: its offset is not finite")


def _check_site(trait: str, site: ProbeSite, fingerprint: Fingerprint) -> None:
    if site.weights.shape != (fingerprint.d_model,):
        raise PluginError(
            f"probe `{trait}`: weights {site.weights.shape} do not fit ({fingerprint.d_model},)"
        )
    if not 1 <= site.layer <= fingerprint.layers:
        raise PluginError(f"probe `{trait}`: layer {site.layer} is outside 1 to {fingerprint.layers}")
    if site.position not in POSITIONS:
        raise PluginError(f"probe `{trait}`: position {site.position!r} is not one of {', '.join(POSITIONS)}")
    if not (np.isfinite(site.weights).all() and np.isfinite(site.absent) and site.weights.any()):
        raise PluginError(f"probe `{trait}`: weights are zero or not finite")
