"""What a log says about a request that has more than a decision and an outcome."""

from dataclasses import replace

import pytest

from guardrail.audit import JsonLines, Sqlite, events, read, verify
from guardrail.errors import AuditError
from guardrail.testing import audit_record
from guardrail.types import Message

TALK = (Message("user", "Hello"),)


@pytest.fixture(params=[JsonLines, Sqlite])
def sink(request, tmp_path):
    return request.param(tmp_path / "audit.log")


@pytest.mark.parametrize("outcome", ["answered", "late"])
def test_an_outcome_whose_decision_is_in_an_older_file_reads(sink, outcome):
    sink.finished(replace(audit_record(), outcome=outcome))
    assert [(record.id, record.outcome) for record in read(sink.path)] == [("r-1", outcome)]
    report = verify(sink.path)
    assert (report.ok, report.requests, report.interrupted) == (True, 0, 0)


def test_a_later_decision_replaces_the_one_before_it_as_a_whole(sink):
    sink.decided(replace(audit_record(), messages=TALK, attempts=1))
    sink.decided(replace(audit_record(), attempts=2))
    assert [(record.attempts, record.messages) for record in read(sink.path)] == [(2, None)]


def test_an_outcome_keeps_the_messages_of_its_decision(sink):
    sink.decided(replace(audit_record(), messages=TALK))
    sink.finished(replace(audit_record(), outcome="answered"))
    assert [record.messages for record in read(sink.path)] == [TALK]
    other = (Message("user", "Goodbye"),)
    sink.finished(replace(audit_record(), outcome="answered", messages=other))
    assert [record.messages for record in read(sink.path)] == [other]


def test_the_last_outcome_stands(sink):
    sink.decided(audit_record())
    for outcome in ("answered", "error"):
        sink.finished(replace(audit_record(), outcome=outcome))
    assert [record.outcome for record in read(sink.path)] == ["error"]


def test_lines_that_are_not_events_are_passed_over(tmp_path):
    sink = JsonLines(tmp_path / "audit.jsonl")
    sink.decided(audit_record("r-1"))
    with sink.path.open("ab") as file:
        file.write(b"not an event\n")
    sink.decided(audit_record("r-2"))
    assert [event.record.id for event in events(sink.path)] == ["r-1", "r-2"]


def test_a_report_names_the_file_it_is_about(sink):
    assert verify(sink.path).path == verify(str(sink.path)).path == str(sink.path)


def test_a_log_that_is_missing_is_named_once(tmp_path):
    with pytest.raises(AuditError) as caught:
        list(events(tmp_path / "no.jsonl"))
    assert str(caught.value) == f"audit log {tmp_path / 'no.jsonl'}: No such file or directory"
