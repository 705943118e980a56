"""The file of the sink `jsonl`, byte by byte: how it is appended to, and how little of it is read."""

import os
import threading
from dataclasses import replace

import pytest

from guardrail.audit import JsonLines, read, verify
from guardrail.audit.line_file import BLOCK
from guardrail.errors import AuditError
from guardrail.testing import audit_record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def counted(monkeypatch, name):
    """Calls of a function of `os`, as the sizes of what it returned."""
    real, sizes = getattr(os, name), []

    def call(*arguments):
        found = real(*arguments)
        sizes.append(len(found) if isinstance(found, bytes) else 1)
        return found

    monkeypatch.setattr(os, name, call)
    return sizes


@pytest.mark.parametrize(("options", "calls"), [({}, 0), ({"fsync": False}, 0), ({"fsync": True}, 2)])
def test_every_event_is_synced_if_that_is_asked_for(path, monkeypatch, options, calls):
    synced = counted(monkeypatch, "fsync")
    sink, record = JsonLines(path, **options), audit_record()
    sink.decided(record)
    sink.finished(replace(record, outcome="blocked"))
    assert len(synced) == calls


def padded(length):
    """A record whose line, without its newline, has this many bytes."""
    from guardrail.audit.lines import GENESIS, encode

    short = replace(audit_record(), text="")
    return replace(short, text="x" * (length - len(encode("decision", short, GENESIS))))


@pytest.mark.parametrize("length", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_a_line_of_any_length_is_followed_by_one_that_names_it(path, length):
    JsonLines(path).decided(padded(length))
    assert path.stat().st_size == length + 1
    JsonLines(path).decided(audit_record("r-2"))
    assert verify(path).ok


def test_spaces_in_a_record_do_not_end_its_line(path):
    for _ in range(2):
        JsonLines(path).decided(replace(audit_record(), error="three words\there"))
    assert verify(path).ok


def test_a_new_sink_reads_the_end_of_the_file_only(path, monkeypatch):
    sink = JsonLines(path)
    for i in range(600):
        sink.decided(audit_record(f"r-{i}"))
    assert path.stat().st_size > 4 * BLOCK
    sizes = counted(monkeypatch, "read")
    JsonLines(path).decided(audit_record("last"))
    assert sum(sizes) <= BLOCK + 2


@pytest.mark.parametrize("torn", [b"", b'{"v":1,'])
def test_a_sink_does_not_read_what_it_wrote_itself(path, monkeypatch, torn):
    path.write_bytes(torn)
    sink = JsonLines(path)
    sink.decided(audit_record("r-1"))
    sizes = counted(monkeypatch, "read")
    sink.decided(audit_record("r-2"))
    assert sum(sizes) == 1


def test_a_write_in_pieces_is_one_line(path, monkeypatch):
    sink, real, pieces = JsonLines(path), os.write, []

    def piecewise(file, data):
        pieces.append(len(data))
        if len(pieces) > 8:
            raise OSError(5, "the pieces never end")
        return real(file, data[:200])

    monkeypatch.setattr(os, "write", piecewise)
    sink.decided(audit_record())
    monkeypatch.undo()
    assert len(pieces) > 2
    assert verify(path).ok
    assert len(list(read(path))) == 1


def test_the_error_of_a_sink_names_its_file(tmp_path):
    with pytest.raises(AuditError, match=str(tmp_path)):
        JsonLines(tmp_path)


def test_a_write_waits_for_whoever_holds_the_file(path):
    fcntl = pytest.importorskip("fcntl")
    sink = JsonLines(path)
    writer = threading.Thread(target=sink.decided, args=(audit_record(),), daemon=True)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert path.stat().st_size == 0
    writer.join(10)
    assert verify(path).lines == 1
