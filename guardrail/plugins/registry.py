"""Handles pluggy: loads plugins, checks that each fits the specifications, and calls hooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import pluggy

from guardrail.errors import ConfigError, PluginError
from guardrail.files.problems import suggest
from guardrail.plugins import hookspecs

GROUP = "guardrail"
BUILT_INS = (
    "guardrail.actions.block",
    "guardrail.actions.escalate",
    "guardrail.actions.rephrase",
    "guardrail.actions.steer",
    "guardrail.audit",
    "guardrail.actions.review_queue",
    "guardrail.engines.builtin",
    "guardrail.extract.methods",
)
HOOKS: tuple[str, ...] = tuple(name for name in vars(hookspecs) if name.startswith("guardrail_"))
"""The names of all hooks, in the order in which the guard calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRow:
    """One plugin. `installed` ones are not loaded, so their hooks are unknown."""

    name: str
    version: str
    state: Literal["built-in", "enabled", "installed"]
    hooks: tuple[str, ...] = ()


class Registry:
    """The loaded plugins, all checked on creation. Raises PluginError.

    `objects` are plugins, `names` are installed ones. `built_ins` are modules that are loaded before them.
    """

    def __init__(
        self, objects: Sequence[object], names: Sequence[str], built_ins: Sequence[str] = BUILT_INS
    ) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._versions: dict[str, str] = {}
        for module in built_ins:
            self._register(import_module(module), module)
        for plugin in objects:
            self._register(plugin, name_of(plugin))
        for name in names:
            self._load(name)

    def calls(self, hook: str, **arguments: object) -> Iterator[tuple[str, Any]]:
        """(plugin, result) of every implementation, in loading order. Raises PluginError if one fails."""
        for plugin, call in self.callables(hook, **arguments):
            yield plugin, call()

    def callables(self, hook: str, **arguments: object) -> list[tuple[str, Callable[[], Any]]]:
        """As `calls`, to be called by somebody else."""
        found = self._implementations(hook)
        return [(one.plugin_name, partial(_call, one, hook, arguments)) for one in found]

    def answers(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(self._implementations(hook))

    def first(self, hook: str, **arguments: object) -> Any:
        """The first answer that is not None, asking the plugin loaded last first; None if there is none."""
        answers = (_call(impl, hook, arguments) for impl in reversed(self._implementations(hook)))
        return next((answer for answer in answers if answer is not None), None)

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        return getattr(self._manager.hook, hook).get_hookimpls()

    def rows(self) -> list[PluginRow]:
        """Every plugin: built in, enabled, and installed without being enabled."""
        loaded = [self._row(name) for name, _ in self._manager.list_name_plugin()]
        known = {row.name for row in loaded}
        waiting = [point for point in entry_points(group=GROUP) if point.name not in known]
        return [
            *loaded,
            *(PluginRow(name=p.name, version=_version(p), state="installed") for p in waiting),
        ]

    def _row(self, name: str) -> PluginRow:
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or ()
        return PluginRow(
            name=name,
            version=self._versions.get(name, ""),
            state="built-in" if self._is_built_in(name) else "enabled",
            hooks=tuple(sorted(caller.name for caller in callers)),
        )

    def _is_built_in(self, name: str) -> bool:
        """The verbs of the command line are built in as well; the registry gets them as objects."""
        return name.startswith("guardrail.") and name not in self._versions

    def _load(self, name: str) -> None:
        if self._manager.has_plugin(name):
            return
        point = _entry_point(name)
        try:
            plugin = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PluginError(f"plugin `{name}` cannot be loaded: {error!r}") from error
        self._versions[name] = _version(point)
        self._register(plugin, name)

    def _register(self, plugin: object, name: str) -> None:
        _check_marked(plugin, name)
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"plugin `{name}`: {error}") from error
        except ValueError as error:
            raise PluginError(f"plugin `{name}` is registered twice") from error
        self._check_hooks(plugin, name)

    def _check_hooks(self, plugin: object, name: str) -> None:
        callers = self._manager.get_hookcallers(plugin)
        if not callers:
            raise PluginError(f"plugin `{name}` implements no hook")
        hooks = {caller.name for caller in callers}
        if "guardrail_engine" in hooks and "guardrail_engines" not in hooks:
            raise PluginError(f"plugin `{name}`: guardrail_engine needs guardrail_engines, with the names")
        for caller in callers:
            if any(impl.wrapper or impl.hookwrapper for impl in caller.get_hookimpls()):
                raise PluginError(f"plugin `{name}`: {caller.name} is a wrapper, which is not supported")


def _call(implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, object]) -> Any:
    try:
        return implementation.function(*(arguments[name] for name in implementation.argnames))
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # also SystemExit, which would end the caller's program or a thread of the guard
        raise PluginError(f"plugin `{implementation.plugin_name}`: {hook} failed: {error!r}") from error


def names_in_environment() -> list[str]:
    """The plugins listed in GUARDRAIL_PLUGINS, separated by commas."""
    return [name for part in os.environ.get("GUARDRAIL_PLUGINS", "").split(",") if (name := part.strip())]


def name_of(plugin: object) -> str:
    """The name of a plugin object: a module's name, or an instance's class name."""
    return str(getattr(plugin, "__name__", type(plugin).__name__))


def _check_marked(plugin: object, name: str) -> None:
    bare = [
        hook
        for hook in HOOKS
        if callable(f := getattr(plugin, hook, None)) and not hasattr(f, "guardrail_impl")
    ]
    if bare:
        raise PluginError(f"plugin `{name}`: {bare[0]} lacks @hookimpl")


def is_installed(name: str) -> bool:
    """Whether there is an installed plugin of this name; it is not loaded."""
    return bool(entry_points(group=GROUP, name=name))


def _entry_point(name: str) -> EntryPoint:
    points = entry_points(group=GROUP)
    found = {point.value: point for point in points if point.name == name}
    if not found:
        raise PluginError(f"plugin `{name}` is not installed{suggest(name, points.names)}")
    if len(found) > 1:
        raise PluginError(f"plugin `{name}` is installed twice: {', '.join(sorted(found))}")
    return next(iter(found.values()))


def _version(point: EntryPoint) -> str:
    return point.dist.version if point.dist else ""
