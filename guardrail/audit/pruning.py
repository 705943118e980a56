"""Removes old lines from a log, and leaves a chain that can be verified."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from guardrail.audit.anchor import Anchor
from guardrail.audit.keys import Key
from guardrail.audit.line_file import LineFile
from guardrail.audit.lines import GENESIS, Pruning, Record, chain_of, decode, encode, line_hash
from guardrail.audit.reading import verify
from guardrail.audit.sqlite import EventTable, is_database
from guardrail.audit.stores import Cut, Store
from guardrail.errors import AuditError
from guardrail.files.records import utc_now


def prune(
    path: str | Path, until: str, key: Key | None = None, anchor: Anchor | None = None
) -> Pruning | None:
    """Remove the lines from before `until` (ISO 8601, UTC); None if there are none.

    Lines go from the start of the log up to the first that is younger. What is left is the new start, then
    the lines that are kept, then a record of the pruning. Give the log's key and anchor if it has them.
    Raises AuditError for a log that is damaged, which nobody should shorten, or that cannot be written.
    """
    log = Path(path)
    report = verify(log, key=key)
    if not report.ok:
        raise AuditError(f"{log}:{report.faults[0].line}: {report.faults[0].message}; not pruned")
    if report.signed and key is None:
        raise AuditError(f"{log}: its records are signed; give its key to prune it")
    try:
        store = EventTable(log) if is_database(log) else LineFile(log)
        return _pruned(store, _Finder(until, key), anchor)
    except (OSError, ValueError, sqlite3.Error) as error:
        raise AuditError.about(log, error) from error


def _pruned(store: Store, finder: _Finder, anchor: Anchor | None) -> Pruning | None:
    store.cut(finder)
    if anchor is not None and finder.pruning is not None:
        anchor.seal(store, line_hash(store.last() or b""), finder.pruning.last)
    store.close()
    return finder.pruning


class _Finder:
    """Finds what to cut from a log; keeps the record of it in `pruning`."""

    def __init__(self, until: str, key: Key | None) -> None:
        self.until, self.key, self.now = until, key, utc_now()
        self.pruning: Pruning | None = None

    def __call__(self, lines: Iterable[bytes]) -> Cut | None:
        count, before, removed, first = 0, 0, b"", b""
        for number, line in enumerate(lines):
            record = _record(line)
            if number == 0:
                first = line
                if isinstance(record, Pruning):
                    before = record.removed - 1
                    continue
            if record is not None and record.time > max(self.now, self.until):
                # of a clock that was wrong: as old as the lines around it, so it goes if one behind it goes
                continue
            if record is None or record.time >= self.until:
                break
            count, removed = number + 1, line
        return self._cut(count, before + count, line_hash(removed), chain_of(first)) if removed else None

    def _cut(self, count: int, removed: int, last: str, chain: str) -> Cut:
        made = Pruning(time=utc_now(), until=self.until, removed=removed, last=last, chain=chain)
        self.pruning = made
        return Cut(
            count=count,
            removed=last,
            first=encode("pruning", made, GENESIS, self.key),
            last=lambda prev: encode("pruning", made, prev, self.key),
        )


def _record(line: bytes) -> Record | None:
    event = decode(line)
    return event.record if event else None
