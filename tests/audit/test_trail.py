"""All sinks as one, and what happens to a record that cannot be written."""

import logging
from contextlib import suppress

import pytest

from guardrail.audit.trail import AuditTrail
from guardrail.errors import AuditError
from guardrail.plugins.audit import AuditSettings
from guardrail.testing import MemoryAudit, audit_record


def trail(*sinks, on_error="block"):
    named = {str(i): sink for i, sink in enumerate(sinks)}
    return AuditTrail(named, AuditSettings(on_error=on_error))


def test_every_sink_gets_every_record_and_is_closed():
    sinks = MemoryAudit(), MemoryAudit()
    made, record = trail(*sinks), audit_record()
    made.decided(record)
    made.finished(record)
    made.close()
    for sink in sinks:
        assert sink.events == [("decided", "r-1"), ("finished", "r-1")]
        assert sink.records == {"r-1": record}
        assert sink.closed
    assert made.dropped == 0


@pytest.mark.parametrize("event", ["decided", "finished"])
def test_a_record_that_cannot_be_written_is_an_error_that_names_the_sink(event):
    made = trail(MemoryAudit(failing=True))
    with pytest.raises(AuditError, match="memory"):
        getattr(made, event)(audit_record())
    assert made.dropped == 0


def test_a_record_that_may_be_dropped_is_counted_and_warned_of_once(caplog):
    broken, whole = MemoryAudit(failing=True), MemoryAudit()
    made = trail(broken, whole, on_error="drop")
    with caplog.at_level(logging.WARNING, logger="guardrail"):
        made.decided(audit_record())
        assert len(caplog.records) == 1
        made.finished(audit_record())
    assert made.dropped == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "memory" in caplog.text
    assert whole.events == [("decided", "r-1"), ("finished", "r-1")]


def test_what_one_sink_cannot_write_the_others_do():
    whole = MemoryAudit()
    made = trail(MemoryAudit(failing=True), whole)
    with pytest.raises(AuditError):
        made.decided(audit_record())
    assert whole.events == [("decided", "r-1")]


@pytest.mark.parametrize("on_error", ["block", "drop"])
def test_a_trail_counts_failures_and_says_whether_it_fails_now(on_error):
    sink = MemoryAudit(failing=True)
    made = trail(sink, on_error=on_error)
    for _ in range(2):
        with suppress(AuditError):
            made.decided(audit_record())
    assert (made.failures, made.failing) == (2, "audit sink `memory`: OSError")
    sink.failing = False
    made.finished(audit_record())
    assert (made.failures, made.failing) == (2, None)
