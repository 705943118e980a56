"""The audit sinks `jsonl` and `sqlite`: a chain of lines, signed if there is a key, anchored if there is a
second place for its head.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from guardrail.audit.anchor import Anchor
from guardrail.audit.keys import Key, is_signed
from guardrail.audit.line_file import LineFile
from guardrail.audit.lines import Evidence, Kind, Record, decode, encode
from guardrail.audit.sqlite import EventTable, is_database
from guardrail.audit.stores import Store
from guardrail.errors import AuditError
from guardrail.plugins.audit import AuditRecord, Change, Review


class ChainedSink:
    """Appends to one log. Raises AuditError, already on creation, if it cannot.

    With a key it goes on with a log only if its last line is signed with this key, or no line is signed yet.
    """

    name: ClassVar[str]
    kept_in: ClassVar[Callable[[Path, bool], Store]]

    def __init__(
        self,
        path: str | Path,
        fsync: bool = False,
        key: Key | None = None,
        anchor: Anchor | None = None,
    ) -> None:
        self.path = Path(path)
        self._key, self._anchor = key, anchor
        with self._reported():
            self._store = type(self).kept_in(self.path, fsync)
            self._check_key(self._store.last() or b"")

    def decided(self, record: AuditRecord) -> None:
        """Append the decision."""
        self._append("decision", record)

    def finished(self, record: AuditRecord) -> None:
        """Append the outcome."""
        self._append("outcome", record)

    def changed(self, change: Change) -> None:
        """Append a change."""
        self._append("change", change)

    def reviewed(self, review: Review) -> None:
        """Append what a person decided."""
        self._append("review", review)

    def found(self, evidence: Evidence) -> None:
        """Append a line of evidence."""
        self._append("evidence", evidence)

    def close(self) -> None:
        """Seal the head, and close the file; writing opens it again."""
        with self._reported():
            if self._anchor is not None:
                self._anchor.close(self._store)
            self._store.close()

    def _append(self, kind: Kind, record: Record) -> None:
        with self._reported():
            head = self._store.append(lambda prev: encode(kind, record, prev, self._key))
            if self._anchor is not None:
                self._anchor.follow(self._store, head)

    def _check_key(self, last: bytes) -> None:
        if decode(last) is None or not is_signed(last):
            # empty, torn by a kill, or from before there was a key: `verify` says what that is
            return
        if self._key is None:
            raise ValueError("its records are signed; give its key, or move the file away")
        if not self._key.fits(last):
            raise ValueError(
                "its last record is signed with another key, or was changed; verify it, and move it away"
            )

    @contextmanager
    def _reported(self) -> Generator[None, None, None]:
        try:
            yield
        except (OSError, ValueError, sqlite3.Error) as error:
            raise AuditError.about(self.path, error) from error


class JsonLines(ChainedSink):
    """A text file, one line per event. To rotate it, move it: a new file begins a new chain."""

    name = "jsonl"
    kept_in = LineFile


class Sqlite(ChainedSink):
    """A SQLite file, one row per event in the table `events`, with columns for queries."""

    name = "sqlite"
    kept_in = EventTable


def opened(path: Path, key: Key | None = None, anchor: Anchor | None = None) -> ChainedSink:
    """A sink that goes on with the log of either kind at this path. Raises AuditError if there is none."""
    try:
        kind = Sqlite if is_database(path) else JsonLines
    except OSError as error:
        raise AuditError.about(path, error) from error
    return kind(path, key=key, anchor=anchor)
