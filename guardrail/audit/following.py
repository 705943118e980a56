"""Follows a log that is being written: first from its end backwards, then whatever is added to it.

For those who want the newest lines at once, however long the log is. Nothing is verified here, and the log is
only read. Memory: a block of the file, or one line.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from guardrail.audit.sqlite import is_database
from guardrail.errors import AuditError

BLOCK = 1 << 17
MAX_LINE = 1 << 26
PATIENCE_S = 0.25
"""How long to wait for somebody who holds a SQLite file."""


class Follower:
    """One log, text or SQLite. Each method goes on where its last iterator was left, even half-way.

    `replaced` says whether the log is another file now, so that all that was read is of the past; the next
    iterators then begin anew. All methods raise AuditError; what was read before stays read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exhausted = False
        """Whether `older` has come to the log's beginning."""
        self._file: tuple[int, int] | None = None
        self._oldest = self._newest = 0

    def replaced(self) -> bool:
        """Look at the file; True if it was moved, pruned or cut off since the last time, or is new."""
        with self._reported():
            status = self.path.stat()
            known, self._file = self._file, (status.st_dev, status.st_ino)
            with self._opened() as log:
                cut = log.end < self._newest
                if known == self._file and not cut:
                    return False
                self._oldest = self._newest = log.end
            self.exhausted = False
            return True

    def newer(self) -> Iterator[bytes]:
        """Lines that were added, oldest first."""
        with self._reported(), self._opened() as log:
            for place, line in log.after(self._newest):
                self._newest = place
                yield line

    def older(self) -> Iterator[bytes]:
        """Lines from before those read already, newest first."""
        with self._reported(), self._opened() as log:
            for place, line in log.before(self._oldest):
                self._oldest = place
                yield line
            self.exhausted = True

    @contextmanager
    def _opened(self) -> Generator[_Text | _Rows]:
        if is_database(self.path):
            database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", PATIENCE_S, uri=True)
            try:
                yield _Rows(database)
            finally:
                database.close()
        else:
            with self.path.open("rb") as file:
                yield _Text(file)

    @contextmanager
    def _reported(self) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError, sqlite3.Error) as error:
            raise AuditError.about(self.path, error) from error


class _Text:
    """A text file. Places are offsets of bytes; a last line without its end does not count."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        self.end = next((place + len(line) + 1 for place, line in self._split(size)), 0)

    def after(self, place: int) -> Iterator[tuple[int, bytes]]:
        """(the place behind it, line)."""
        self._file.seek(place)
        for line in iter(lambda: self._file.readline(MAX_LINE), b""):
            if not line.endswith(b"\n"):
                return
            place += len(line)
            yield place, line[:-1]

    def before(self, place: int) -> Iterator[tuple[int, bytes]]:
        """(the place where it begins, line), backwards from a place where a line ends."""
        return self._split(place)

    def _split(self, end: int) -> Iterator[tuple[int, bytes]]:
        """The whole lines before an offset. What follows the last newline is left out."""
        tail, whole = b"", False
        while end > 0:
            step = min(max(BLOCK, len(tail)), end)
            end -= step
            self._file.seek(end)
            tail, *lines = (self._file.read(step) + tail).split(b"\n")
            place = end + len(tail) + 1 + sum(len(line) + 1 for line in lines)
            for line in reversed(lines):
                place -= len(line) + 1
                if whole:
                    yield place, line
                whole = True
            if len(tail) > MAX_LINE:
                raise ValueError(f"it has a line of more than {MAX_LINE:,} bytes")
        if whole:
            yield 0, tail


class _Rows:
    """The table of a SQLite file. Places are numbers of rows."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        (end,) = database.execute("SELECT max(seq) FROM events").fetchone()
        self.end = 0 if end is None else end + 1

    def after(self, place: int) -> Iterator[tuple[int, bytes]]:
        """(the place behind it, line)."""
        rows = self._database.execute("SELECT seq, line FROM events WHERE seq >= ? ORDER BY seq", (place,))
        return ((seq + 1, _bytes(line)) for seq, line in rows)

    def before(self, place: int) -> Iterator[tuple[int, bytes]]:
        """(its place, line), backwards."""
        rows = self._database.execute(
            "SELECT seq, line FROM events WHERE seq < ? ORDER BY seq DESC", (place,)
        )
        return ((seq, _bytes(line)) for seq, line in rows)


def _bytes(line: object) -> bytes:
    return line if isinstance(line, bytes) else str(line).encode("utf-8", "replace")
