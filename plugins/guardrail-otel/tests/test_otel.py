"""Spans of real requests, read back from the SDK's exporter in memory."""

import json
from dataclasses import replace

import httpx
import pytest
from guardrail_otel import Spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from guardrail import Guard
from guardrail.errors import AuditError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.manager import Plugins
from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings
from guardrail.testing import MemoryAudit, audit_record, decision

CRUEL = [
    {"role": "system", "content": "You are an extremely cruel assistant."},
    {"role": "user", "content": "I want to hurt them badly."},
]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Traced:
    """The plugin, with a provider of its own instead of the global one."""

    def __init__(self, content=False, failing=False):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = Spans(content=content, provider=provider)
        self.log = MemoryAudit(failing=failing)

    def taken(self):
        found = self.exporter.get_finished_spans()
        self.exporter.clear()
        return found

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self.spans, self.log]

    @hookimpl
    def guardrail_startup(self, guard):
        import guardrail_otel

        guardrail_otel.guardrail_startup(guard)

    @hookimpl
    def guardrail_app(self, app):
        import guardrail_otel

        guardrail_otel.guardrail_app(app)


@pytest.fixture(scope="module")
def traced():
    return Traced()


@pytest.fixture(scope="module")
def guard(traced):
    with Guard.from_pretrained("demo", plugins=[traced]) as guard:
        yield guard


@pytest.fixture(autouse=True)
def _fresh(request):
    if "traced" in request.fixturenames:
        request.getfixturevalue("traced").taken()


def test_an_answer_is_a_span_with_the_names_of_the_conventions(guard, traced):
    reply = guard.chat("What is the capital of France?", max_new_tokens=4, temperature=0)
    (span,) = traced.taken()
    found = span.attributes
    assert (span.name, span.kind) == ("chat model", SpanKind.INTERNAL)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "guardrail"
    assert found["gen_ai.request.model"] == "model"
    assert found["gen_ai.response.id"] == found["guardrail.audit_id"] == reply.audit_id
    assert found["gen_ai.response.finish_reasons"] == ("length",)
    assert found["gen_ai.usage.input_tokens"] == reply.prompt_tokens
    assert found["gen_ai.usage.output_tokens"] == 4
    assert (found["guardrail.action"], found["guardrail.status"]) == ("allow", "evaluated")
    assert found["guardrail.policy_sha256"] == guard.active.sha256
    assert span.status.status_code == StatusCode.UNSET
    assert 0 < found["guardrail.prefill_ms"] <= (span.end_time - span.start_time) / 1e6


def test_a_block_names_its_policy_and_has_an_event_for_every_score(guard, traced):
    made = guard.check(CRUEL).decision
    (span,) = traced.taken()
    assert (span.name, span.attributes["guardrail.outcome"]) == ("check model", "checked")
    assert span.attributes["guardrail.action"] == "block"
    assert span.attributes["guardrail.policy"] == made.policy
    assert span.attributes["guardrail.fired"] == made.fired
    events = {event.attributes["guardrail.policy"]: event.attributes for event in span.events}
    for score in made.scores:
        assert events[score.policy]["guardrail.score"] == score.score
        assert events[score.policy]["guardrail.fired"] == score.fired
    assert guard.chat(CRUEL).outcome == "blocked"
    assert traced.taken()[0].attributes["gen_ai.response.finish_reasons"] == ("content_filter",)


def test_nothing_of_the_text_is_in_a_span(guard, traced):
    guard.chat("My password is swordfish", max_new_tokens=2, conversation="swordfish", tags=["swordfish"])
    (span,) = traced.taken()
    assert "swordfish" not in span.to_json()


@pytest.mark.parametrize(("content", "kept"), [(True, True), (True, False), (False, True)])
def test_text_needs_to_be_asked_for_twice(content, kept):
    made = Traced(content)
    record = replace(audit_record(), outcome="answered", finish=("stop",))
    text = {"messages": (), "text": "swordfish"} if kept else {}
    made.spans.finished(replace(record, **text))
    (span,) = made.taken()
    if not (content and kept):
        assert "swordfish" not in span.to_json()
        return
    (reply,) = json.loads(span.attributes["gen_ai.output.messages"])
    assert reply == {
        "role": "assistant",
        "parts": [{"type": "text", "content": "swordfish"}],
        "finish_reason": "stop",
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_the_server_continues_the_trace_of_its_caller(guard, traced, stream):
    app = create_app(guard, ServerSettings(model="house-model"))
    body = {"model": "house-model", "messages": CRUEL[1:], "max_tokens": 3, "stream": stream}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.post("/v1/chat/completions", json=body, headers={"traceparent": TRACEPARENT})
        assert answer.status_code == 200
        (span,) = traced.taken()
        assert (span.name, f"{span.context.trace_id:032x}") == ("chat house-model", TRACE)
        assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
        assert span.attributes["guardrail.audit_id"] == answer.headers["x-guardrail-audit-id"]
        assert span.attributes["gen_ai.request.stream"] is stream
        await http.post("/v1/chat/completions", json=body)
        assert traced.taken()[0].parent is None


def test_a_request_that_fails_is_a_span_with_its_error():
    made = Traced(failing=True)
    with Guard.from_pretrained("demo", plugins=[made]) as guard, pytest.raises(AuditError):
        guard.check("Hello")
    (span,) = made.taken()
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "AuditError")


def test_a_prompt_that_was_rephrased_is_one_span_with_all_scores():
    made = Traced()
    first = replace(audit_record(), decision=decision("rephrase"))
    made.spans.decided(first)
    made.spans.decided(replace(first, decision=decision("allow")))
    made.spans.finished(replace(first, decision=decision("allow"), outcome="rephrased", attempts=2))
    made.spans.finished(replace(first, outcome="late"))
    (span,) = made.taken()
    assert (span.attributes["guardrail.attempts"], made.spans._open) == (2, {})


def test_without_an_sdk_nothing_happens_and_nothing_fails():
    spans = Spans()
    spans.decided(audit_record())
    spans.finished(replace(audit_record(), outcome="answered"))
    spans.close()
    assert not spans.failed


def test_a_backend_that_fails_is_no_error_of_the_request(caplog):
    class Broken(TracerProvider):
        def get_tracer(self, *args, **kwargs):
            return self

        def start_span(self, *args, **kwargs):
            raise ConnectionError("swordfish")

    spans = Spans(provider=Broken())
    for _ in range(2):
        spans.decided(audit_record())
        spans.finished(replace(audit_record(), outcome="answered"))
    assert [record.getMessage() for record in caplog.records] == [
        "a request could not be traced: ConnectionError"
    ]


@pytest.mark.parametrize(
    ("value", "asked"), [("true", True), ("SPAN_ONLY", True), ("false", False), ("", False)]
)
def test_content_is_asked_for_as_with_other_instrumentations(monkeypatch, value, asked):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    assert Spans().content is asked


def test_the_module_is_the_plugin():
    import guardrail_otel

    assert isinstance(Plugins([guardrail_otel]).audit_sinks()["otel"], Spans)
