"""The plugin manager: loads built-in and enabled plugins through the same hooks. Importing it loads no torch.

An installed plugin is not enabled by default: an entry point of the group `guardrail` is loaded only if a
policy file lists it (`plugins:`) or a caller passes its name. A plugin listed in the policy file may loosen a
decision; others can only tighten it. `Plugins` is immutable: `enabled` returns a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from guardrail.errors import EvaluationError, PluginError
from guardrail.files.problems import suggest
from guardrail.plugins.audit import AuditSettings, AuditSink
from guardrail.plugins.contributions import check_action, check_probe, engine_names, gather
from guardrail.plugins.hookspecs import ENGINES
from guardrail.plugins.protocols import (
    Action,
    ActionInfo,
    EscalationSink,
    ExtractionMethod,
    Judge,
    Rephraser,
    Scorer,
)
from guardrail.plugins.registry import PluginRow, Registry, is_installed, names_in_environment
from guardrail.plugins.results import checked_review
from guardrail.types import Decision, Fingerprint, Message, Probe

if TYPE_CHECKING:
    from fastapi import FastAPI

    from guardrail.engines import Engine
    from guardrail.guard import Guard


Review: TypeAlias = Callable[[], str | None]
"""Returns the action that a plugin asks for, None if it asks for none. Raises EvaluationError."""


class Plugins:
    """The contributions of all loaded plugins, by name. `named` are the plugins listed in the policy file.

    `plugins` are objects with hooks, or names of installed plugins. Raises PluginError for a plugin that is
    missing, fails to load, or does not fit the specifications.
    """

    def __init__(self, plugins: Sequence[object] = (), named: frozenset[str] = frozenset()) -> None:
        self.named = named
        self._plugins = tuple(plugins)
        names = dict.fromkeys([p for p in plugins if isinstance(p, str)] + sorted(named))
        self._registry = Registry([p for p in plugins if not isinstance(p, str)], list(names))

    @classmethod
    def from_environment(cls) -> Self:
        """The built-in plugins and those listed in GUARDRAIL_PLUGINS. The command line starts with these."""
        return cls(names_in_environment())

    def enabled(self, names: Sequence[str]) -> Self:
        """A new Plugins that adds those listed in a policy file, which may loosen decisions."""
        return type(self)(self._plugins, self.named | frozenset(names))

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """The names of the engines that there are."""
        return engine_names(self._registry.calls("guardrail_engines"))

    @cached_property
    def actions(self) -> Mapping[str, Action]:
        """Actions that policies may use."""
        actions = gather(self._registry.calls("guardrail_actions"), Action)
        for action in actions.values():
            check_action(action)
        return actions

    def action_infos(self) -> Mapping[str, ActionInfo]:
        """For each action, what the policy compiler needs to know."""
        sinks = frozenset(self.escalation_sinks())
        context = {"rephraser": frozenset(self.rephrasers), "escalation sink": sinks}
        return {
            name: ActionInfo(
                strength=action.strength,
                validate=partial(action.Config.model_validate, context=context),
                compile=action.compile,
                config=action.Config,
            )
            for name, action in self.actions.items()
        }

    def probes(self, fingerprint: Fingerprint) -> Mapping[str, Probe]:
        """Linear detectors for this model, by trait."""
        probes = gather(self._registry.calls("guardrail_probes", fingerprint=fingerprint), Probe, "trait")
        for probe in probes.values():
            check_probe(probe, fingerprint)
        return probes

    @cached_property
    def scorers(self) -> Mapping[str, Scorer]:
        """Non-linear detectors."""
        return gather(self._registry.calls("guardrail_scorers"), Scorer)

    @cached_property
    def rephrasers(self) -> Mapping[str, Rephraser]:
        """Rephrasers for the `by` key of the action `rephrase`."""
        return gather(self._registry.calls("guardrail_rephrasers"), Rephraser)

    def escalation_sinks(self, replacing: Sequence[EscalationSink] = ()) -> Mapping[str, EscalationSink]:
        """Sinks for the `to` key of the action `escalate`; `replacing` overrides those of the same name."""
        return {**self._escalation_sinks, **gather([("caller", list(replacing))], EscalationSink)}

    @cached_property
    def _escalation_sinks(self) -> Mapping[str, EscalationSink]:
        return gather(self._registry.calls("guardrail_escalation_sinks"), EscalationSink)

    def audit_sinks(self, settings: AuditSettings | None = None) -> Mapping[str, AuditSink]:
        """New sinks for audit records: the files in the settings, and those that plugins add."""
        calls = self._registry.calls("guardrail_audit_sinks", settings=settings or AuditSettings())
        return gather(calls, AuditSink)

    @cached_property
    def judges(self) -> Mapping[str, Judge]:
        """Judges of replies."""
        return gather(self._registry.calls("guardrail_judges"), Judge)

    @cached_property
    def extraction_methods(self) -> Mapping[str, ExtractionMethod]:
        """Methods that compute a direction from activations."""
        return gather(self._registry.calls("guardrail_extraction_methods"), ExtractionMethod)

    def knowing(self, engine: str) -> Self:
        """Also with the installed plugin that is called like an engine that is not built in."""
        if engine in ENGINES or not is_installed(engine):
            return self
        return type(self)((*self._plugins, engine), self.named)

    def load(self, engine: str, name: str, arguments: Mapping[str, object]) -> tuple[Any, Any]:
        """(model, tokenizer) by name, as the engine needs them. Raises PluginError and ModelError."""
        self.check_engine(engine)
        return self._registry.first("guardrail_model", engine=engine, name=name, arguments=arguments)

    def engine(
        self,
        name: str,
        model: object,
        tokenizer: object,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> Engine:
        """The engine called `name` around this model. The plugin loaded last is asked first."""
        self.check_engine(name)
        engine: Engine | None = self._registry.first(
            "guardrail_engine",
            name=name,
            model=model,
            tokenizer=tokenizer,
            chat_template=chat_template,
            template_arguments=template_arguments,
        )
        if engine is None:
            raise PluginError(f"a plugin lists the engine `{name}`, but does not make it")
        return engine

    def check_engine(self, name: str) -> None:
        """Raises PluginError for a name that no plugin lists."""
        if name not in self.engines:
            raise _no_engine(name, self.engines)

    @property
    def reviews(self) -> bool:
        """Whether any plugin reviews decisions."""
        return self._registry.answers("guardrail_review")

    def reviewers(self, decision: Decision, messages: Sequence[Message]) -> list[tuple[str, Review]]:
        """(plugin, its review) for every plugin that reviews decisions, to be called by somebody else."""
        reviews = self._registry.callables("guardrail_review", decision=decision, messages=tuple(messages))
        return [(plugin, partial(self._review, plugin, review)) for plugin, review in reviews]

    def _review(self, plugin: str, review: Callable[[], Any]) -> str | None:
        try:
            return checked_review(plugin, review(), self.actions)
        except PluginError as error:
            # the message may hold the prompt, and decisions are written to logs
            text = f"{str(error).split(' failed: ')[0]} failed: {type(error.__cause__).__name__}"
            raise EvaluationError(text) from error

    def startup(self, guard: Guard) -> None:
        """Tell plugins that the guard is ready."""
        for _ in self._registry.calls("guardrail_startup", guard=guard):
            pass

    def extend_app(self, app: FastAPI) -> None:
        """Let plugins add to the server's application."""
        for _ in self._registry.calls("guardrail_app", app=app):
            pass

    def listing(self) -> Sequence[PluginRow]:
        """Every plugin: built in, enabled, and installed without being enabled."""
        return self._registry.rows()


ELSEWHERE = {"vllm": "persona-guardrail-vllm"}
"""Engines of plugins that we make as well, and their packages. The plugin has the engine's name."""


def _no_engine(name: str, known: Sequence[str]) -> PluginError:
    if name in ELSEWHERE:
        return PluginError(
            f"the engine `{name}` is a plugin: pip install {ELSEWHERE[name]}, and enable it with "
            f'GUARDRAIL_PLUGINS={name}, or plugins=["{name}"] in Python'
        )
    return PluginError(f"no plugin provides the engine `{name}`{suggest(name, (*known, *ELSEWHERE))}")
