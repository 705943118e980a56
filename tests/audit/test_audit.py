import json
import math
import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from guardrail.audit import JsonLines, Sqlite, events, new_id, prompt_sha256, read, verify
from guardrail.audit.lines import FIELDS
from guardrail.errors import AuditError
from guardrail.files.records import DECISION_FIELDS, SCORE_FIELDS, STEERING_FIELDS
from guardrail.plugins.audit import AuditRecord, AuditSettings, AuditSink
from guardrail.plugins.manager import Plugins
from guardrail.testing import audit_record
from guardrail.types import Decision, Message, Score, Steering, Timing

SINKS = {"jsonl": JsonLines, "sqlite": Sqlite}


@pytest.fixture(params=sorted(SINKS))
def make(request):
    return SINKS[request.param]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


def finished(record, outcome="blocked"):
    return replace(record, outcome=outcome)


def write(sink, count):
    for i in range(count):
        record = audit_record(f"r-{i}")
        sink.decided(record)
        sink.finished(finished(record))


def full_record():
    score = Score(policy="p", trait="evil", layer=4, score=2.5, threshold=2.0, fired=True, mode="shadow")
    steering = Steering(
        policy="p",
        trait="evil",
        operator="cap",
        layers=(2,),
        directions=(np.ones(4, np.float32),),
        limits=(1.0,),
    )
    record = audit_record()
    decision = replace(record.decision, scores=(score,), steering=(steering,), warnings=("w",), error="e")
    return replace(record, decision=decision, tags=("a", "b"), timing=Timing(guard=0.5), ticket_id="t-1")


def test_the_sinks_are_audit_sinks(make, path):
    sink = make(path)
    assert isinstance(sink, AuditSink)
    sink.close()


def test_a_request_reads_as_it_ended(make, path):
    sink, record = make(path), full_record()
    sink.decided(record)
    sink.finished(replace(finished(record, "answered"), new_tokens=7))
    (back,) = read(path)
    bare = replace(record.decision, steering=(replace(record.decision.steering[0], directions=()),))
    assert back == replace(record, decision=bare, outcome="answered", new_tokens=7)


def test_a_decision_is_in_the_file_before_decided_returns(make, path):
    make(path).decided(audit_record())
    (back,) = read(path)
    assert back.outcome == "interrupted"


def test_requests_come_in_the_order_of_their_decisions(make, path):
    sink = make(path)
    first, second = audit_record("r-1"), audit_record("r-2")
    sink.decided(first)
    sink.decided(second)
    sink.finished(finished(second))
    sink.finished(finished(first, "error"))
    assert [(r.id, r.outcome) for r in read(path)] == [("r-1", "error"), ("r-2", "blocked")]
    assert [event.kind for event in events(path)] == ["decision", "decision", "outcome", "outcome"]


@pytest.mark.parametrize("order", [("blocked", "late"), ("late", "blocked")])
def test_a_late_result_does_not_replace_what_the_caller_got(make, path, order):
    sink, record = make(path), audit_record()
    sink.decided(record)
    for outcome in order:
        sink.finished(finished(record, outcome))
    assert [back.outcome for back in read(path)] == ["blocked"]
    assert [event.record.outcome for event in events(path)] == [None, *order]


def test_text_is_in_the_file_only_where_the_record_has_it(make, path):
    sink = make(path)
    sink.decided(audit_record())
    assert b"messages" not in path.read_bytes()
    told = replace(audit_record("r-2"), messages=(Message("user", "Žluťoučký"),))
    sink.decided(told)
    sink.finished(replace(finished(told), messages=None, text="kůň"))
    back = list(read(path))[1]
    assert (back.messages, back.text) == (told.messages, "kůň")


def test_every_field_of_the_types_is_listed_or_left_out_on_purpose():
    def names(kind):
        return {field.name for field in fields(kind)}

    others = {"decision", "messages", "timing", "text", "reply_decision", "finish"}
    assert names(AuditRecord) - set(FIELDS) == others
    assert names(Decision) - set(DECISION_FIELDS) == {"scores", "steering"}
    assert names(Score) == set(SCORE_FIELDS)
    assert names(Steering) == set(STEERING_FIELDS)


def test_a_score_that_is_no_number_is_null_and_reads_as_nan(make, path):
    score = replace(full_record().decision.scores[0], score=math.inf)
    record = audit_record()
    make(path).decided(replace(record, decision=replace(record.decision, scores=(score,))))
    (back,) = read(path)
    assert math.isnan(back.decision.scores[0].score)


def test_an_untouched_log_is_whole(make, path):
    write(make(path), 3)
    report = verify(path)
    assert (report.ok, report.lines, report.requests, report.interrupted) == (True, 6, 3, 0)


def test_an_empty_log_is_whole(make, path):
    make(path)
    assert verify(path).ok
    assert list(read(path)) == []


def edit(path, change):
    """Apply a change to the list of lines of a log of either kind."""
    if path.read_bytes().startswith(b"SQLite"):
        database = sqlite3.connect(path)
        lines = change([line for (line,) in database.execute("SELECT line FROM events ORDER BY seq")])
        database.execute("DELETE FROM events")
        database.executemany("INSERT INTO events (line) VALUES (?)", [(line,) for line in lines])
        database.commit()
        database.close()
    else:
        path.write_bytes(b"".join(line + b"\n" for line in change(path.read_bytes().splitlines())))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [lines[0].replace(b'"block"', b'"allow"'), *lines[1:]], 2),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
    ],
    ids=["edited", "removed", "first removed", "swapped", "repeated"],
)
def test_tampering_is_found_where_it_happened(make, path, change, line):
    write(make(path), 3)
    edit(path, change)
    report = verify(path)
    assert not report.ok
    assert report.faults[0].line == line


def test_a_cut_off_end_is_found_by_the_head_that_was_kept(make, path):
    sink = make(path)
    write(sink, 2)
    head = verify(path).head
    write(sink, 1)
    assert verify(path, head).ok
    edit(path, lambda lines: lines[:2])
    assert verify(path).ok
    assert "cut off" in verify(path, head).faults[0].message


def test_a_torn_last_line_is_reported_and_what_came_before_still_reads(path):
    write(JsonLines(path), 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"v":1,"event":"decis')
    assert [record.id for record in read(path)] == ["r-0", "r-1"]
    assert verify(path).faults[0].message == "the last line is cut off"


def test_a_log_with_a_torn_line_goes_on(path):
    write(JsonLines(path), 1)
    path.write_bytes(path.read_bytes() + b'{"v":1,"event":"decis')
    write(JsonLines(path), 1)
    assert [fault.line for fault in verify(path).faults] == [3]
    assert len(list(events(path))) == 4


def test_a_new_sink_goes_on_with_the_chain(make, path):
    for _ in range(3):
        write(make(path), 1)
    assert verify(path).ok


def test_lines_longer_than_one_read_are_chained(path):
    long = replace(audit_record(), messages=(Message("user", "x" * 200_000),))
    for _ in range(3):
        JsonLines(path).decided(long)
    assert verify(path).ok


def test_a_rotated_log_begins_anew(tmp_path, path):
    sink = JsonLines(path)
    write(sink, 1)
    path.rename(tmp_path / "audit.log.1")
    write(sink, 1)
    assert verify(path).ok
    assert verify(tmp_path / "audit.log.1").ok


def test_threads_share_a_sink(make, path):
    sink = make(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: sink.decided(audit_record(f"r-{i}")), range(40)))
    report = verify(path)
    assert (report.ok, report.requests) == (True, 40)


def _write_elsewhere(name, path, worker):
    sink = SINKS[name](path)
    for i in range(20):
        sink.decided(audit_record(f"{worker}-{i}"))


def test_processes_share_a_file(make, path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        pool.starmap(_write_elsewhere, [(make.name, path, worker) for worker in range(2)])
    report = verify(path)
    assert (report.ok, report.requests) == (True, 40)


KILLED = """
import sys
from guardrail.audit import JsonLines, Sqlite
from guardrail.testing import audit_record
sink = {"jsonl": JsonLines, "sqlite": Sqlite}[sys.argv[1]](sys.argv[2])
sink.decided(audit_record("r-1"))
print("decided", flush=True)
sys.stdin.read()
"""


def test_a_kill_between_decision_and_outcome_leaves_a_readable_log(make, path):
    command = [sys.executable, "-c", KILLED, make.name, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "decided\n"
        os.kill(process.pid, signal.SIGKILL)
    (back,) = read(path)
    assert (back.id, back.outcome, back.decision.action) == ("r-1", "interrupted", "block")
    report = verify(path)
    assert (report.ok, report.interrupted) == (True, 1)
    write(make(path), 1)
    assert verify(path).ok


def test_a_path_that_cannot_be_written_fails_from_the_start(make, tmp_path):
    with pytest.raises(AuditError, match=str(tmp_path)):
        make(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(AuditError):
        make(blocked / "audit.log")


def test_a_path_that_no_file_can_have_is_an_audit_error(make, tmp_path):
    with pytest.raises(AuditError):
        make(tmp_path / "nul\0")


def test_a_full_disk_is_an_audit_error():
    sink = JsonLines("/dev/full")
    with pytest.raises(AuditError, match="No space left on device"):
        sink.decided(audit_record())


def test_a_write_that_fails_half_way_leaves_no_torn_line(path, monkeypatch):
    sink = JsonLines(path)
    write(sink, 1)
    before, real = path.read_bytes(), os.write

    def half(file, data):
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(file, data[:-50])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(AuditError):
        sink.decided(audit_record("r-9"))
    monkeypatch.undo()
    assert path.read_bytes() == before
    write(sink, 1)
    assert verify(path).ok


def test_a_file_that_is_no_log_is_all_faults(path):
    path.write_text("hello\nworld\n")
    assert list(read(path)) == []
    assert len(verify(path).faults) == 2


def test_reading_what_is_not_there_is_an_error(path):
    with pytest.raises(AuditError, match="No such file"):
        list(read(path))
    with pytest.raises(AuditError, match="No such file"):
        verify(path)


def test_a_database_that_is_no_log_is_an_error(path):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE other (a)")
    database.close()
    with pytest.raises(AuditError, match="not an audit log"):
        verify(path)


def test_sqlite_columns_answer_queries(path):
    write(Sqlite(path), 2)
    database = sqlite3.connect(path)
    rows = database.execute(
        "SELECT id, action, policy, outcome FROM events WHERE event = 'outcome'"
    ).fetchall()
    database.close()
    assert rows == [("r-0", "block", "test", "blocked"), ("r-1", "block", "test", "blocked")]


def test_only_the_owner_can_read_a_log(make, path):
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_line_is_ascii_json(path):
    JsonLines(path, fsync=True).decided(replace(audit_record(), error="č\n"))
    (line,) = Path(path).read_text("ascii").splitlines()
    assert json.loads(line)["record"]["error"] == "č\n"


def test_the_settings_of_a_policy_file_become_sinks(tmp_path):
    settings = AuditSettings(jsonl=str(tmp_path / "a.jsonl"), sqlite=str(tmp_path / "a.sqlite"))
    assert sorted(Plugins().audit_sinks(settings)) == ["jsonl", "sqlite"]
    assert Plugins().audit_sinks() == {}


def test_ids_are_unique_and_sort_by_time():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [i[:12] for i in ids] == sorted(i[:12] for i in ids)


def test_the_prompts_hash_tells_roles_and_turns_apart():
    together = prompt_sha256([Message("user", "ab")])
    apart = prompt_sha256([Message("user", "a"), Message("user", "b")])
    role = prompt_sha256([Message("system", "ab")])
    assert len({together, apart, role, prompt_sha256([])}) == 4
    assert prompt_sha256([Message("user", "\ud800")])
