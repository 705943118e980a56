"""A log as a SQLite file: the same lines as in a text file, one row each, with columns for queries."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from guardrail.audit.lines import GENESIS, line_hash
from guardrail.audit.stores import Cut, MakeLine, Patience, ProcessLock
from guardrail.errors import AuditError
from guardrail.files.sqlite import Table, committed, opened

MAGIC = b"SQLite format 3\0"
COLUMNS = {
    "id": "record.id",
    "event": "event",
    "time": "record.time",
    "action": "record.decision.action",
    "policy": "record.decision.policy",
    "outcome": "record.outcome",
    "conversation": "record.conversation",
    "ended": "record.ended",
    "reviewer": "record.reviewer",
    "lifted": "record.lifted",
}
"""Where in its line each column for queries stands."""


def _column(place: str) -> str:
    # computed from the line, so that nobody can change one without the other
    return f"TEXT GENERATED ALWAYS AS (json_extract(CAST(line AS TEXT), '$.{place}'))"


EVENTS = Table(
    "events",
    {
        "seq": "INTEGER PRIMARY KEY",
        "line": "BLOB NOT NULL",
        **{name: _column(place) for name, place in COLUMNS.items()},
    },
    indexes={"events_time": "time", "events_id": "id"},
)


class EventTable:
    """The `Store` of the sink `sqlite`: the table `events` of one file. Made if there is no such file.

    A row survives if the process is killed; with `fsync` it also survives a power cut.
    """

    def __init__(self, path: Path, fsync: bool = False) -> None:
        self.path, self.fsync = path, fsync
        self._lock = ProcessLock()
        self._patience = Patience()
        # one per process: SQLite forbids using or closing a connection inherited over a fork
        self._connections: dict[int, sqlite3.Connection] = {}
        self._connection()

    def append(self, make: MakeLine) -> str:
        """Append a line; returns its hash."""
        with self._writing() as database:
            last = _end(database, "DESC")
            line = make(GENESIS if last is None else line_hash(last))
            database.execute("INSERT INTO events (line) VALUES (?)", (line,))
            return line_hash(line)

    def first(self) -> bytes | None:
        """The first line; None if there is none."""
        with self._lock:
            return _end(self._connection(), "ASC")

    def last(self) -> bytes | None:
        """The last line; None if there is none."""
        with self._lock:
            return _end(self._connection(), "DESC")

    def cut(self, find: Callable[[Iterable[bytes]], Cut | None]) -> None:
        """Cut off what `find` says, and write over what it was on the disk."""
        with self._writing() as database:
            if (cut := find(_lines(database))) is None:
                return
            database.execute("PRAGMA secure_delete = ON")
            seqs = database.execute("SELECT seq FROM events ORDER BY seq LIMIT ?", (cut.count,)).fetchall()
            ((last_seq,),) = seqs[-1:]
            database.execute("DELETE FROM events WHERE seq <= ?", (last_seq,))
            kept = _end(database, "DESC")
            line = cut.last(cut.removed if kept is None else line_hash(kept))
            database.execute("INSERT INTO events (seq, line) VALUES (?, ?)", (last_seq, cut.first))
            database.execute("INSERT INTO events (line) VALUES (?)", (line,))
        self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file; writing opens it again."""
        with self._lock:
            if database := self._connections.pop(os.getpid(), None):
                database.close()

    def _connection(self) -> sqlite3.Connection:
        if os.getpid() not in self._connections:
            self._connections[os.getpid()] = opened(
                self.path, EVENTS, durable=self.fsync, busy_s=self._patience.seconds
            )
        return self._connections[os.getpid()]

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            database = self._connection()
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                self._waited(database, in_vain=error.sqlite_errorcode == sqlite3.SQLITE_BUSY)
                raise
            with committed(database):
                self._waited(database, in_vain=False)
                yield database

    def _waited(self, database: sqlite3.Connection, in_vain: bool) -> None:
        if self._patience.waited(in_vain):
            database.execute(f"PRAGMA busy_timeout = {self._patience.seconds * 1e3:.0f}")


def _end(database: sqlite3.Connection, order: Literal["ASC", "DESC"]) -> bytes | None:
    row = database.execute(f"SELECT line FROM events ORDER BY seq {order} LIMIT 1").fetchone()
    return None if row is None else _bytes(row[0])


def _lines(database: sqlite3.Connection) -> Iterator[bytes]:
    return (_bytes(line) for (line,) in database.execute("SELECT line FROM events ORDER BY seq"))


def _bytes(line: bytes | str) -> bytes:
    return line if isinstance(line, bytes) else str(line).encode()


def is_database(path: Path) -> bool:
    """Whether a file is SQLite's. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, first to last, without changing it."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        yield from _lines(database)
    except sqlite3.Error as error:
        raise AuditError(f"{path}: not an audit log: {error}") from error
    finally:
        database.close()
