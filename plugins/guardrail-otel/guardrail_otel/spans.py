"""One span for each request, from its audit records. It holds what the record holds, in the same words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from time import time_ns
from typing import TypeAlias

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from guardrail.errors import outline
from guardrail.plugins.audit import AuditRecord
from guardrail_otel import attributes

log = logging.getLogger("guardrail")

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable with which OpenTelemetry's own instrumentations are asked for content."""
Write: TypeAlias = "Callable[[Spans, AuditRecord], None]"


def _harmless(write: Write) -> Write:
    """Never an error of the request: what cannot be traced is answered all the same."""

    @wraps(write)
    def safe(self: Spans, record: AuditRecord) -> None:
        try:
            write(self, record)
        except Exception as error:
            if not self.failed:
                log.warning("a request could not be traced: %s", outline(error))
            self.failed = True

    return safe


class Spans:
    """An audit sink that begins a span with the first decision and ends it with the outcome.

    `content`: whether spans hold messages and replies. They need `audit: {text: true}` in the policy file as
    well. Default: what OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says, which is no.
    """

    name = "otel"

    def __init__(self, content: bool | None = None, provider: trace.TracerProvider | None = None) -> None:
        asked = os.environ.get(CAPTURE, "").lower() in ("true", "span_only", "span_and_event")
        self.content = asked if content is None else content
        self.model = ""
        self.failed = False
        self._tracer = trace.get_tracer("guardrail_otel", tracer_provider=provider)
        self._open: dict[str, Span] = {}

    @_harmless
    def decided(self, record: AuditRecord) -> None:
        """Begin, or note that the prompt was evaluated again."""
        span = self._open.get(record.id)
        if span is None:
            span = self._open[record.id] = self._begin(record)
        _scores(span, record, "prompt")

    @_harmless
    def finished(self, record: AuditRecord) -> None:
        """End. A decision that comes after the caller was answered has no span."""
        if record.outcome == "late":
            return
        span = self._open.pop(record.id, None) or self._begin(record)
        span.set_attributes(attributes.of(record))
        if self.content:
            span.set_attributes(attributes.content(record))
        if record.reply_decision is not None:
            _scores(span, record, "response")
        if record.outcome == "error":
            kind = (record.error or "").partition(":")[0].partition(",")[0]
            span.set_attribute("error.type", kind or "_OTHER")
            span.set_status(Status(StatusCode.ERROR, kind))
        span.end()

    def close(self) -> None:
        """End what never got an outcome."""
        for span in self._open.values():
            span.end()
        self._open.clear()

    def _begin(self, record: AuditRecord) -> Span:
        operation = attributes.OPERATIONS[record.kind]
        # a record is written when there is a decision, and the span began with the request
        start = time_ns() - int(record.timing.total * 1e6)
        return self._tracer.start_span(
            f"{operation} {self.model}".strip(),
            kind=SpanKind.INTERNAL,
            attributes=attributes.begun(record, self.model),
            start_time=start,
        )


def _scores(span: Span, record: AuditRecord, stage: str) -> None:
    decision = record.decision if stage == "prompt" else record.reply_decision
    for score in decision.scores if decision and span.is_recording() else ():
        span.add_event("guardrail.score", attributes.score(score, stage))
