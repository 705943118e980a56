"""OpenTelemetry spans of guarded requests. Without an SDK nothing is recorded, and nothing fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.plugins.audit import AuditSink
from guardrail.plugins.hookspecs import hookimpl
from guardrail_otel.context import TraceContext
from guardrail_otel.spans import Spans

if TYPE_CHECKING:
    from fastapi import FastAPI

    from guardrail import Guard

__all__ = ["Spans", "TraceContext"]


@hookimpl
def guardrail_audit_sinks() -> Sequence[AuditSink]:
    """Spans are made from what the audit trail is told."""
    return [Spans()]


@hookimpl
def guardrail_startup(guard: Guard) -> None:
    """Take the model's name; of a folder only its last part."""
    name = str(getattr(guard.model, "name_or_path", ""))
    _name_model(guard, Path(name).name if Path(name).is_absolute() else name)


@hookimpl
def guardrail_app(app: FastAPI) -> None:
    """Continue the traces of callers, and use the name that they know the model by."""
    app.add_middleware(TraceContext)
    service = app.state.service
    _name_model(service.guard, service.settings.model)


def _name_model(guard: Guard, name: str) -> None:
    for sink in guard.audit.sinks.values():
        if isinstance(sink, Spans):
            sink.model = name
