"""Reads audit logs: the events, the requests with their outcomes, and whether the log is intact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from guardrail.audit import sqlite
from guardrail.audit.lines import Event, decode
from guardrail.audit.verification import VerifyReport, check
from guardrail.errors import AuditError
from guardrail.plugins.audit import AuditRecord

MAGIC = b"SQLite format 3\0"


def read(path: str | Path) -> Iterator[AuditRecord]:
    """Every request, in the order of the decisions. The outcome of an unfinished one is `interrupted`.

    Damaged lines are skipped; `verify` reports them. Raises AuditError if there is no log.
    """
    records: dict[str, AuditRecord] = {}
    for event in events(path):
        known = records.get(event.record.id)
        records[event.record.id] = _merged(known, event)
    yield from (r if r.outcome else replace(r, outcome="interrupted") for r in records.values())


def _merged(known: AuditRecord | None, event: Event) -> AuditRecord:
    if known is None or event.kind == "decision":
        return event.record
    if event.record.outcome == "late" and known.outcome is not None:
        # the caller already got the first outcome; `events` still shows this one
        return known
    return replace(event.record, messages=event.record.messages or known.messages)


def events(path: str | Path) -> Iterator[Event]:
    """Every event, in the order of writing."""
    for line, _ in _lines(Path(path)):
        if event := decode(line):
            yield event


def verify(path: str | Path, head: str | None = None) -> VerifyReport:
    """Check that the log is intact. With the `head` of an earlier report, a cut-off end is found too."""
    return check(str(path), _lines(Path(path)), head)


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                yield from ((line, True) for line in sqlite.lines(path))
                return
            file.seek(0)
            yield from ((line.removesuffix(b"\n"), line.endswith(b"\n")) for line in file)
    except OSError as error:
        raise AuditError(f"audit log {path}: {error}") from error
