"""SQLite files that several threads and processes share: made on first use, private to their owner, WAL.

A connection lasts for one piece of work, so nothing is carried over a fork or between threads.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

BUSY_S = 10.0
VERSION = 1


@contextmanager
def connection(path: Path, schema: str) -> Generator[sqlite3.Connection, None, None]:
    """A connection in autocommit mode to a file with this schema. Raises OSError or sqlite3.Error."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as database:
        _prepare(database, schema)
        # FULL: what was stored survives a power cut
        database.execute("PRAGMA synchronous = FULL")
        yield database


@contextmanager
def transaction(path: Path, schema: str) -> Generator[sqlite3.Connection, None, None]:
    """A connection that holds the write lock; what it did is kept if the block ends without an error."""
    with connection(path, schema) as database:
        database.execute("BEGIN IMMEDIATE")
        yield database
        database.execute("COMMIT")


def _prepare(database: sqlite3.Connection, schema: str) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version:
        raise sqlite3.DatabaseError(f"version {version} is not supported; supported: {VERSION}")
    _use_wal(database)
    database.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {VERSION}; COMMIT;")


def _use_wal(database: sqlite3.Connection) -> None:
    # SQLite does not wait here by itself when another process is making the same file
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
