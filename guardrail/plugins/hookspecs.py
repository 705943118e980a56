"""The pluggy hook specifications, in the order in which the guard calls them. No logic.

plugins/README.md documents each hook with its exact signature; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer
    from fastapi import FastAPI

    from guardrail.engines import Engine
    from guardrail.guard import Guard
    from guardrail.plugins.audit import AuditSettings, AuditSink
    from guardrail.plugins.protocols import Action, EscalationSink, ExtractionMethod, Judge, Rephraser, Scorer
    from guardrail.types import Decision, Fingerprint, Message, Probe

PROJECT = "guardrail"
ENGINES = (
    *("transformers", "transformers-nnsight", "transformers-hooks", "transformers-ahead"),
    "transformers-batching",
)
"""The names of the built-in engines."""
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def guardrail_engines() -> Sequence[str]:  # type: ignore[empty-body]
    """The names of the engines that this plugin has."""


@hookspec
def guardrail_model(  # type: ignore[empty-body]
    engine: str, name: str, arguments: Mapping[str, object]
) -> tuple[object, object] | None:
    """(model, tokenizer) for an engine that does not guard a loaded model of transformers, or None."""


@hookspec
def guardrail_engine(  # type: ignore[empty-body]
    name: str,
    model: object,
    tokenizer: object,
    chat_template: str | None,
    template_arguments: Mapping[str, object] | None,
) -> Engine | None:
    """The engine called `name` around a loaded model, or None if this plugin has no such engine."""


@hookspec
def guardrail_actions() -> Sequence[Action]:  # type: ignore[empty-body]
    """Actions that policies may use."""


@hookspec
def guardrail_probes(fingerprint: Fingerprint) -> Sequence[Probe]:  # type: ignore[empty-body]
    """Linear detectors for this model, read in the same matrix product as the trait vectors."""


@hookspec
def guardrail_scorers() -> Sequence[Scorer]:  # type: ignore[empty-body]
    """Non-linear detectors. Each runs once per prompt, before the forward pass."""


@hookspec
def guardrail_startup(guard: Guard) -> None:
    """Called once the guard is ready, before it serves the first request."""


@hookspec
def guardrail_review(decision: Decision, messages: Sequence[Message]) -> str | None:  # type: ignore[empty-body]
    """An action to take instead, or None. It can only tighten, unless the policy file names the plugin."""


@hookspec
def guardrail_rephrasers() -> Sequence[Rephraser]:  # type: ignore[empty-body]
    """Ways to rephrase, for the `by` key of the action `rephrase`."""


@hookspec
def guardrail_escalation_sinks() -> Sequence[EscalationSink]:  # type: ignore[empty-body]
    """Sinks that store tickets, for the `to` key of the action `escalate`."""


@hookspec
def guardrail_audit_sinks(settings: AuditSettings) -> Sequence[AuditSink]:  # type: ignore[empty-body]
    """New sinks for audit records; `settings` is the `audit` section of the policy file."""


@hookspec
def guardrail_judges() -> Sequence[Judge]:  # type: ignore[empty-body]
    """Judges of replies, for extraction and evaluation. Each scores many requests at a time."""


@hookspec
def guardrail_extraction_methods() -> Sequence[ExtractionMethod]:  # type: ignore[empty-body]
    """Methods that compute a direction from activations."""


@hookspec
def guardrail_cli(app: typer.Typer) -> None:
    """Add commands to the command line."""


@hookspec
def guardrail_app(app: FastAPI) -> None:
    """Add routes or middleware to the server's application, before it starts."""
