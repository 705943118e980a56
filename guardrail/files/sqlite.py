"""SQLite files that threads and processes share: created on first use, private to their owner, WAL mode."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

BUSY_S = 10.0
VERSION = 1


def opened(path: Path, schema: str, durable: bool = True) -> sqlite3.Connection:
    """A connection in autocommit mode; any thread may use it, one at a time. Raises OSError or sqlite3.Error.

    Committed data survives the end of the process; if `durable`, it also survives a power cut.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, schema)
        database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def connection(path: Path, schema: str) -> Generator[sqlite3.Connection, None, None]:
    """A durable connection for one piece of work, so that no fork or other thread shares it."""
    with closing(opened(path, schema)) as database:
        yield database


@contextmanager
def transaction(database: sqlite3.Connection) -> Generator[None, None, None]:
    """Holds the write lock. Commits if the block ends without an error, else rolls back."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _prepare(database: sqlite3.Connection, schema: str) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version:
        raise sqlite3.DatabaseError(f"version {version} is not supported; supported: {VERSION}")
    _use_wal(database)
    database.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {VERSION}; COMMIT;")


def _use_wal(database: sqlite3.Connection) -> None:
    # SQLite itself does not wait here if another process is creating the same file
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
