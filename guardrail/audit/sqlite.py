"""The audit sink `sqlite`: the same lines as `jsonl`, one row each, with columns for queries."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from guardrail.audit.lines import GENESIS, Kind, encode, line_hash
from guardrail.errors import AuditError
from guardrail.files.sqlite import opened, transaction
from guardrail.plugins.audit import AuditRecord

# the columns are computed from the line, so that nobody can change one without the other
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    line BLOB NOT NULL,
    id TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.record.id')),
    event TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.event')),
    time TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.record.time')),
    action TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.record.decision.action')),
    policy TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.record.decision.policy')),
    outcome TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.record.outcome'))
);
CREATE INDEX IF NOT EXISTS events_time ON events (time);
CREATE INDEX IF NOT EXISTS events_id ON events (id);
"""


class Sqlite:
    """Appends to the table `events` of one file. Raises AuditError, already on creation, if it cannot.

    A row survives if the process is killed; with `fsync` it also survives a power cut.
    """

    name = "sqlite"

    def __init__(self, path: str | Path, fsync: bool = False) -> None:
        self.path = Path(path)
        self.fsync = fsync
        self._lock = threading.Lock()
        # one per process: SQLite forbids using or closing a connection inherited over a fork
        self._connections: dict[int, sqlite3.Connection] = {}
        with self._reported():
            self._connection()

    def decided(self, record: AuditRecord) -> None:
        """Append the decision."""
        self._append("decision", record)

    def finished(self, record: AuditRecord) -> None:
        """Append the outcome."""
        self._append("outcome", record)

    def close(self) -> None:
        """Close the file; writing opens it again."""
        with self._lock:
            if database := self._connections.pop(os.getpid(), None):
                database.close()

    def _connection(self) -> sqlite3.Connection:
        if os.getpid() not in self._connections:
            self._connections[os.getpid()] = opened(self.path, SCHEMA, durable=self.fsync)
        return self._connections[os.getpid()]

    def _append(self, kind: Kind, record: AuditRecord) -> None:
        with self._lock, self._reported(), transaction(database := self._connection()):
            last = database.execute("SELECT line FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            line = encode(kind, record, line_hash(last[0]) if last else GENESIS)
            database.execute("INSERT INTO events (line) VALUES (?)", (line,))

    @contextmanager
    def _reported(self) -> Generator[None, None, None]:
        try:
            yield
        except (OSError, ValueError, sqlite3.Error) as error:
            raise AuditError(f"audit log {self.path}: {error}") from error


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, first to last, without changing it."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        for (line,) in database.execute("SELECT line FROM events ORDER BY seq"):
            yield line if isinstance(line, bytes) else str(line).encode()
    except sqlite3.Error as error:
        raise AuditError(f"{path}: not an audit log: {error}") from error
    finally:
        database.close()
