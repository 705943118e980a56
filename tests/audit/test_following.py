"""A log is read from its end while others write to it."""

import sqlite3
from itertools import islice

import pytest

from guardrail.audit import JsonLines, Sqlite
from guardrail.audit import following as module
from guardrail.audit.following import Follower
from guardrail.audit.lines import decode
from guardrail.errors import AuditError
from guardrail.testing import audit_record

KINDS = {"a.jsonl": JsonLines, "a.sqlite": Sqlite}


@pytest.fixture(params=KINDS)
def log(request, tmp_path, monkeypatch):
    """A sink with ten records, in a file of either kind that takes several blocks."""
    monkeypatch.setattr(module, "BLOCK", 1000)
    sink = KINDS[request.param](tmp_path / request.param)
    for number in range(10):
        sink.decided(audit_record(f"r-{number}"))
    return sink


def ids(lines):
    return [decode(line).record.id for line in lines]


def test_older_lines_come_newest_first_and_go_on_where_they_were_left(log):
    follower = Follower(log.path)
    assert follower.replaced()
    assert ids(islice(follower.older(), 3)) == ["r-9", "r-8", "r-7"]
    assert not follower.exhausted
    assert ids(follower.older()) == [f"r-{number}" for number in range(6, -1, -1)]
    assert follower.exhausted


def test_newer_lines_come_once(log):
    follower = Follower(log.path)
    follower.replaced()
    assert ids(follower.newer()) == []
    for name in ("new-1", "new-2"):
        log.decided(audit_record(name))
    assert ids(islice(follower.newer(), 1)) == ["new-1"]
    assert not follower.replaced()
    assert ids(follower.newer()) == ["new-2"]
    assert ids(follower.newer()) == []


def test_half_a_line_counts_once_it_is_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"first\nsecond\nhal")
    follower = Follower(path)
    follower.replaced()
    assert list(follower.older()) == [b"second", b"first"]
    assert list(follower.newer()) == []
    with path.open("ab") as file:
        file.write(b"f\n")
    assert list(follower.newer()) == [b"half"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [(b"", []), (b"torn", []), (b"\n", [b""]), (b"a\n", [b"a"]), (b"a\n\nb\n", [b"b", b"", b"a"])],
)
def test_any_text_is_cut_into_its_lines(tmp_path, content, lines):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    follower = Follower(path)
    follower.replaced()
    assert list(follower.older()) == lines


def test_a_file_that_was_moved_begins_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"old\n")
    follower = Follower(path)
    assert follower.replaced()
    path.rename(tmp_path / "moved.jsonl")
    path.write_bytes(b"new\n")
    assert follower.replaced()
    assert list(follower.older()) == [b"new"]
    path.write_bytes(b"")
    assert follower.replaced()
    assert list(follower.older()) == []


def test_a_log_that_is_missing_or_held_by_somebody_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(AuditError, match=r"none\.jsonl: No such file"):
        Follower(tmp_path / "none.jsonl").replaced()
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    path = tmp_path / "a.sqlite"
    Sqlite(path).close()
    holder = sqlite3.connect(path)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(AuditError, match="locked"):
        Follower(path).replaced()
    holder.close()


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE", 5000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 300_000 + b"\nlast\n")
    follower = Follower(path)
    follower.replaced()
    with pytest.raises(AuditError, match="a line of more than"):
        list(follower.older())
