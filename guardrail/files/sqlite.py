"""SQLite files that threads and processes share: created on first use, private to their owner, WAL mode."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.files.private import make_private

BUSY_S = 10.0
VERSION = 1


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the definition of each column, what stands after them, and the columns of each index.

    Columns that an older file lacks are added to it, so they must be such that SQLite can add them.
    """

    name: str
    columns: Mapping[str, str]
    options: str = ""
    indexes: Mapping[str, str] = field(default_factory=dict[str, str])

    def create(self, database: sqlite3.Connection) -> None:
        """The table and whatever it lacks."""
        columns = ", ".join(f"{name} {definition}" for name, definition in self.columns.items())
        database.execute(f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}) {self.options}")
        for name in self.missing(database):
            database.execute(f"ALTER TABLE {self.name} ADD COLUMN {name} {self.columns[name]}")
        for name, columns in self.indexes.items():
            database.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {self.name} ({columns})")

    def missing(self, database: sqlite3.Connection) -> list[str]:
        """The columns that a file lacks."""
        # not `table_info`, which leaves out computed columns
        rows = database.execute("SELECT name FROM pragma_table_xinfo(?)", (self.name,))
        there = {name for (name,) in rows}
        return [name for name in self.columns if name not in there]


def opened(path: Path, table: Table, durable: bool = True, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """A connection in autocommit mode; any thread may use it, one at a time. Raises OSError or sqlite3.Error.

    Committed data survives the end of the process; if `durable`, it also survives a power cut. `busy_s`: how
    long to wait for another process that holds the file.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    make_private(path)
    database = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, table, busy_s)
        database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def connection(path: Path, table: Table, busy_s: float = BUSY_S) -> Generator[sqlite3.Connection, None, None]:
    """A durable connection for one piece of work, so that no fork or other thread shares it."""
    with closing(opened(path, table, busy_s=busy_s)) as database:
        yield database


@contextmanager
def transaction(database: sqlite3.Connection) -> Generator[None, None, None]:
    """Holds the write lock. Commits if the block ends without an error, else rolls back."""
    database.execute("BEGIN IMMEDIATE")
    with committed(database):
        yield


@contextmanager
def committed(database: sqlite3.Connection) -> Generator[None, None, None]:
    """Commits the transaction that has begun if the block ends without an error, else rolls back."""
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _prepare(database: sqlite3.Connection, table: Table, busy_s: float) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(f"version {version} is not supported; supported: {VERSION}")
    if version == VERSION and not table.missing(database):
        return
    _use_wal(database, busy_s)
    with transaction(database):
        table.create(database)
        database.execute(f"PRAGMA user_version = {VERSION}")


def _use_wal(database: sqlite3.Connection, busy_s: float) -> None:
    # SQLite itself does not wait here if another process is creating the same file
    deadline = time.monotonic() + busy_s
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
