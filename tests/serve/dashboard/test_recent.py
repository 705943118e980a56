"""The newest requests of a log: all of them, or as many as are kept, whatever else is in the log."""

import sqlite3
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from traffic import lines, traffic, write

from guardrail.audit import Sqlite, read
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import default_policies, load
from guardrail.serve.dashboard import recent as module
from guardrail.serve.dashboard.recent import Recent

PLAN = load(default_policies("demo"), None, Plugins([])).plan
RECORDS = list(traffic(PLAN, 500, harmful=0.1, broken=0.02))


@pytest.fixture(scope="module", params=["a.jsonl", "a.sqlite"])
def log(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("log") / request.param, RECORDS)


def shown(reading):
    """What is kept of each request, as the records say it."""
    records = reading.records
    values = records.names.values
    for row in records.requests:
        yield row["id"].decode(), *(values[row[name]] for name in ("action", "policy", "outcome", "status"))


def test_every_request_is_there_as_the_log_has_it(log):
    found = Recent(log).update(10)
    expected = [
        (r.id, r.decision.action, r.decision.policy or "", r.outcome, r.decision.status) for r in read(log)
    ]
    assert list(shown(found)) == expected
    assert (found.complete, found.lines, found.unreadable, found.problem) == (True, 1000, 0, None)
    scores = [(s.trait, s.score, s.fired) for r in read(log) for s in r.decision.scores]
    conditions = found.records.conditions.values
    assert [
        (conditions[s["condition"]].trait, s["score"], s["holds"]) for s in found.records.scores
    ] == scores


def test_a_little_at_a_time_gives_the_same(log, monkeypatch):
    monkeypatch.setattr(module, "STEP", 7)
    monkeypatch.setattr(module, "BLOCK_ROWS", 50)
    recent = Recent(log)
    first = recent.update(1e-4)
    assert not first.complete
    while not (found := recent.update(1e-3)).complete:
        pass
    assert list(shown(found)) == list(shown(Recent(log).update(10)))
    assert [row[0] for row in shown(first)] == [r.id for r in RECORDS[500 - len(first.records) :]]


def test_no_more_than_the_limit_are_kept(log, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 10)
    found = Recent(log, limit=100).update(10)
    assert found.complete
    assert 100 <= len(found.records) < 120
    assert list(shown(found))[-1][0] == RECORDS[-1].id


def test_new_requests_are_added_and_old_ones_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 10)
    recent, log = Recent(tmp_path / "a.sqlite", limit=50), Sqlite(tmp_path / "a.sqlite")
    for record in RECORDS[:120]:
        log.decided(replace(record, outcome=None, ended=None))
        log.finished(record)
        recent.update(10)
    found = list(shown(recent.update(10)))
    assert 50 <= len(found) < 70
    assert [row[0] for row in found] == [r.id for r in RECORDS[120 - len(found) : 120]]


def test_a_request_without_an_end_is_shown_and_may_still_end(tmp_path):
    log, now = Sqlite(tmp_path / "a.sqlite"), datetime.now(UTC)
    young = replace(RECORDS[0], id="young", time=now.isoformat())
    old = replace(RECORDS[1], id="old", time=(now - timedelta(hours=1)).isoformat())
    for record in (old, young):
        log.decided(replace(record, outcome=None, ended=None))
    recent = Recent(log.path)
    assert [row[3] for row in shown(recent.update(10))] == ["interrupted", "interrupted"]
    log.finished(young)
    log.finished(replace(young, outcome="late"))
    found = recent.update(10)
    assert [(row[0], row[3]) for row in shown(found)] == [("old", "interrupted"), ("young", young.outcome)]
    assert found.late == 1


def test_damaged_lines_and_other_versions_are_counted_and_the_rest_is_shown(tmp_path):
    good = list(lines(RECORDS[:20]))
    bad = [b"", b"{", b"\xff\xfe", b"[1]", good[0].replace(b'"status":"', b'"status":1,"x":"')]
    other = good[2].replace(b'{"v":1', b'{"v":2')
    odd = good[4].replace(RECORDS[2].time.encode(), b"yesterday").replace(RECORDS[2].id.encode(), b"odd")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*good[:10], *bad, other, odd, *good[10:]]) + b"\n")
    found = Recent(path).update(10)
    assert (found.damaged, found.other_versions, len(found.records)) == (len(bad) + 1, 1, 20)
    assert found.problem is None


def test_logs_of_older_versions_are_read(tmp_path):
    old = lines(RECORDS[:1])
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(line.replace(b',"would_action":"allow"', b"") for line in old) + b"\n")
    assert len(Recent(path).update(10).records) == 1


def test_a_log_that_breaks_half_way_keeps_what_was_read(tmp_path):
    path = write(tmp_path / "a.sqlite", RECORDS)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = b"\xff" * (len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    found = Recent(path).update(10)
    assert found.problem
    assert "a.sqlite" in found.problem
    assert 0 < len(found.records) < 500
    assert list(shown(found))[-1][0] == RECORDS[-1].id


def test_a_log_that_is_gone_keeps_what_was_read(tmp_path):
    path = write(tmp_path / "a.jsonl", RECORDS[:10])
    recent = Recent(path)
    recent.update(10)
    path.unlink()
    found = recent.update(10)
    assert "No such file" in (found.problem or "")
    assert len(found.records) == 10


def test_the_time_given_is_kept(tmp_path):
    path = write(tmp_path / "a.jsonl", RECORDS)
    recent, begun = Recent(path), time.monotonic()
    recent.update(0)
    assert time.monotonic() - begun < 0.5
