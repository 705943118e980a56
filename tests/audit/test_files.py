"""Files that are there already: of an older version, or open to other users."""

import logging
import os
import sqlite3
import stat
import time
from contextlib import contextmanager

import pytest

from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit import JsonLines, Sqlite, read, verify
from guardrail.audit.lines import GENESIS, encode
from guardrail.audit.stores import PATIENCE_S
from guardrail.errors import AuditError
from guardrail.testing import audit_record, ticket

FIRST_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    line BLOB NOT NULL,
    id TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.record.id')),
    event TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.event'))
);
PRAGMA user_version = 1;
"""


def make_old(path):
    database = sqlite3.connect(path)
    database.executescript(FIRST_SCHEMA)
    database.execute("INSERT INTO events (line) VALUES (?)", (encode("decision", audit_record(), GENESIS),))
    database.commit()
    database.close()


def test_a_database_of_an_older_version_gets_the_new_columns(tmp_path):
    path = tmp_path / "audit.sqlite"
    make_old(path)
    sink = Sqlite(path)
    sink.decided(audit_record("r-2"))
    sink.close()
    database = sqlite3.connect(path)
    rows = database.execute("SELECT id, action, policy, conversation, outcome FROM events ORDER BY seq")
    assert rows.fetchall() == [("r-1", "block", "test", "", None), ("r-2", "block", "test", "", None)]
    plan = database.execute("EXPLAIN QUERY PLAN SELECT id FROM events WHERE time > '2026'").fetchall()
    assert "events_time" in str(plan)
    database.close()
    assert verify(path).ok
    assert [record.id for record in read(path)] == ["r-1", "r-2"]


def test_a_database_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "audit.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(Exception, match="version 7 is not supported"):
        Sqlite(path)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="file modes mean nothing there")
@pytest.mark.parametrize("use", [JsonLines, Sqlite, lambda path: ReviewQueue(path).open(ticket())])
def test_files_that_others_could_read_become_private_and_that_is_said(use, tmp_path, caplog):
    path = tmp_path / "kept"
    path.touch(0o644)
    for kind in ("-wal", "-shm"):
        (tmp_path / f"kept{kind}").touch(0o666)
    with caplog.at_level(logging.WARNING, logger="guardrail"):
        use(path)
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}
    assert "kept was open to other users" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="file modes mean nothing there")
def test_a_folder_in_which_anyone_may_write_is_warned_of(tmp_path, caplog):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    JsonLines(folder / "audit.jsonl")
    assert "any user can replace or remove" in caplog.text
    caplog.clear()
    folder.chmod(0o1777)
    JsonLines(folder / "audit.jsonl")
    assert not caplog.text


def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "audit.jsonl")
    with pytest.raises(AuditError, match="a pipe, which keeps no records"):
        JsonLines(tmp_path / "audit.jsonl")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_device_keeps_its_mode():
    before = os.stat("/dev/full").st_mode
    JsonLines("/dev/full")
    assert os.stat("/dev/full").st_mode == before


@contextmanager
def held(path):
    """Another connection, as of another process, that holds the log's lock."""
    if path.read_bytes().startswith(b"SQLite"):
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        yield
        database.close()
        return
    fcntl = pytest.importorskip("fcntl")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("kind", [JsonLines, Sqlite])
def test_a_log_that_someone_holds_is_waited_for_once(kind, tmp_path):
    sink = kind(tmp_path / "audit.log")
    sink.decided(audit_record("r-1"))
    with held(sink.path):
        start = time.monotonic()
        with pytest.raises(AuditError):
            sink.decided(audit_record("r-2"))
        first = time.monotonic()
        for _ in range(5):
            with pytest.raises(AuditError):
                sink.decided(audit_record("r-3"))
        assert PATIENCE_S * 0.9 <= first - start < PATIENCE_S + 2
        assert time.monotonic() - first < PATIENCE_S
    sink.decided(audit_record("r-4"))
    assert [record.id for record in read(sink.path)] == ["r-1", "r-4"]
    assert verify(sink.path).ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", [JsonLines, Sqlite])
def test_a_child_process_writes_even_if_the_parent_was_writing_when_it_forked(kind, tmp_path):
    sink = kind(tmp_path / "audit.log")
    with sink._store._lock:
        if (child := os.fork()) == 0:
            sink.decided(audit_record("child"))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    sink.decided(audit_record("parent"))
    assert [record.id for record in read(sink.path)] == ["child", "parent"]
    assert verify(sink.path).ok
