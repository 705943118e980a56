"""Every pluggy specification, in the order of the flow. No logic.

Each hook is documented with its exact signature in plugins/README.md, and tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from guardrail.engines import Engine
    from guardrail.guard import Guard
    from guardrail.plugins.protocols import (
        Action,
        AuditSettings,
        AuditSink,
        EscalationSink,
        ExtractionMethod,
        Judge,
        Rephraser,
        Scorer,
    )
    from guardrail.types import Decision, Fingerprint, Message, Probe

PROJECT = "guardrail"
ENGINES = ("transformers", "transformers-nnsight", "transformers-hooks", "transformers-ahead")
"""The names of the built-in engines."""
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


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
    """Actions that policies may name."""


@hookspec
def guardrail_probes(fingerprint: Fingerprint) -> Sequence[Probe]:  # type: ignore[empty-body]
    """Linear detectors for this model; they join the same matrix product as the trait vectors."""


@hookspec
def guardrail_scorers() -> Sequence[Scorer]:  # type: ignore[empty-body]
    """Detectors that are not linear; each runs once per prompt, before the forward pass."""


@hookspec
def guardrail_startup(guard: Guard) -> None:
    """The guard is ready; nothing has been served yet."""


@hookspec
def guardrail_review(decision: Decision, messages: Sequence[Message]) -> str | None:  # type: ignore[empty-body]
    """An action to take instead, or None. It can only tighten, unless the policy file names the plugin."""


@hookspec
def guardrail_rephrasers() -> Sequence[Rephraser]:  # type: ignore[empty-body]
    """Ways to rephrase, for the `by` key of the action `rephrase`."""


@hookspec
def guardrail_escalation_sinks() -> Sequence[EscalationSink]:  # type: ignore[empty-body]
    """Places where tickets go, for the `to` key of the action `escalate`."""


@hookspec
def guardrail_audit_sinks(settings: AuditSettings) -> Sequence[AuditSink]:  # type: ignore[empty-body]
    """New sinks for audit records; `settings` is what the policy file says under `audit`."""


@hookspec
def guardrail_judges() -> Sequence[Judge]:  # type: ignore[empty-body]
    """Judges of replies, for extraction and evaluation; each scores many requests at a time."""


@hookspec
def guardrail_extraction_methods() -> Sequence[ExtractionMethod]:  # type: ignore[empty-body]
    """Ways to get a direction from activations."""


@hookspec
def guardrail_cli(app: typer.Typer) -> None:
    """Add verbs to the command line."""
