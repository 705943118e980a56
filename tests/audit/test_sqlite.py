"""The sink `sqlite` and its connections."""

import sqlite3
from dataclasses import replace

import pytest

from guardrail.audit import Sqlite, read, verify
from guardrail.audit import sqlite as module
from guardrail.testing import audit_record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.sqlite"


@pytest.fixture
def connections(monkeypatch):
    """Every connection that sinks open."""
    made, real = [], module.opened

    def opened(*arguments, **keys):
        made.append(real(*arguments, **keys))
        return made[-1]

    monkeypatch.setattr(module, "opened", opened)
    return made


@pytest.mark.parametrize(("options", "level"), [({}, 1), ({"fsync": False}, 1), ({"fsync": True}, 2)])
def test_a_power_cut_is_survived_if_that_is_asked_for(path, connections, options, level):
    Sqlite(path, **options)
    assert [made.execute("PRAGMA synchronous").fetchone() for made in connections] == [(level,)]


def test_closing_closes_the_connection_and_writing_opens_another(path, connections):
    sink = Sqlite(path)
    sink.decided(audit_record())
    sink.close()
    sink.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connections[0].execute("SELECT 1")
    sink.finished(replace(audit_record(), outcome="blocked"))
    assert len(connections) == 2
    assert verify(path).ok


def test_lines_that_were_stored_as_text_are_read_as_bytes(path):
    sink = Sqlite(path)
    sink.decided(audit_record())
    sink.finished(replace(audit_record(), outcome="blocked"))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE events SET line = CAST(line AS TEXT)")
    database.close()
    assert verify(path).ok
    assert [record.outcome for record in read(path)] == ["blocked"]


def test_reading_changes_nothing(path):
    sink = Sqlite(path)
    sink.decided(audit_record())
    sink.close()
    before = path.read_bytes()
    assert verify(path).ok
    assert path.read_bytes() == before
