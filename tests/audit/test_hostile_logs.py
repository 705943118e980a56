"""Audit logs that somebody has damaged on purpose: read, verified and shown without a foreign error."""

import json
from dataclasses import replace

import pytest
from hostile import damaged, ours, variants

from guardrail.audit import JsonLines, read, verify
from guardrail.cli import run
from guardrail.evaluation.shadow import shadowed
from guardrail.testing import audit_record
from guardrail.types import Message, Score


@pytest.fixture
def log(tmp_path):
    """A log of one request with everything that a record may hold."""
    score = Score(policy="p", trait="evil", layer=4, score=2.5, threshold=2.0, fired=True, mode="shadow")
    record = audit_record("a")
    decision = replace(record.decision, scores=(score,), fired=("p",), warnings=("w",))
    record = replace(record, decision=decision, reply_decision=decision, messages=(Message("user", "a"),))
    sink = JsonLines(tmp_path / "audit.jsonl")
    sink.decided(record)
    sink.finished(replace(record, outcome="blocked", tags=("web",)))
    return sink.path


def used(path, capsys):
    """All that is done with a log."""
    verify(path)
    shadowed(read(path))
    for shown in ((), ("--json",)):
        assert run(["audit", "tail", str(path), *shown]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_no_line_ends_in_a_traceback(log, capsys):
    for line in log.read_bytes().splitlines():
        for text in variants(json.loads(line), 4):
            log.write_text(text + "\n")
            with ours(text[:2000]):
                used(log, capsys)


def test_no_damaged_log_ends_in_a_traceback(log, capsys):
    for content in damaged(log.read_bytes(), 30):
        log.write_bytes(content)
        with ours(content[:2000]):
            used(log, capsys)
