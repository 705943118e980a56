"""Reads audit logs: the events, the requests with their outcomes, and whether the log is intact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from guardrail.audit import sqlite
from guardrail.audit.keys import Key
from guardrail.audit.lines import Anchored, Event, OtherRecord, Record, decode
from guardrail.audit.seals import compare
from guardrail.audit.verification import VerifyReport, walk
from guardrail.errors import AuditError
from guardrail.plugins.audit import AuditRecord


def read(path: str | Path) -> Iterator[AuditRecord]:
    """Every request, in the order of the decisions. The outcome of an unfinished one is `interrupted`.

    Damaged lines are skipped; `verify` reports them. Raises AuditError if there is no log.
    """
    records: dict[str, AuditRecord] = {}
    for event in events(path):
        records[event.record.id] = _merged(records.get(event.record.id), event)
    yield from (r if r.outcome else replace(r, outcome="interrupted") for r in records.values())


def _merged(known: AuditRecord | None, event: Event[AuditRecord]) -> AuditRecord:
    if known is None or event.kind == "decision":
        return event.record
    if event.record.outcome == "late" and known.outcome is not None:
        # the caller already got the first outcome; `events` still shows this one
        return known
    return replace(event.record, messages=event.record.messages or known.messages)


def events(path: str | Path) -> Iterator[Event[AuditRecord]]:
    """Every event of a request, in the order of writing."""
    for event in _events(Path(path)):
        if isinstance(event.record, AuditRecord):
            yield Event(event.kind, event.record)


def history(path: str | Path) -> Iterator[OtherRecord]:
    """What is not about one request: changes, reviews and prunings, in the order of writing."""
    for event in _events(Path(path)):
        if not isinstance(event.record, AuditRecord):
            yield event.record


def _events(path: Path) -> Iterator[Event[Record]]:
    for line, _ in lines(path):
        if event := decode(line):
            yield event


def verify(
    path: str | Path, head: str | None = None, key: Key | None = None, anchor: str | Path | None = None
) -> VerifyReport:
    """Check that the log is intact. With the `head` of an earlier report, a cut-off end is found too.

    With the log's `key`, lines that were changed or forged are found, and the last line is no exception. With
    its `anchor`, whatever was done to lines that this has sealed. Raises AuditError if there is no log.
    """
    return verify_all([path], head, key, anchor)[0]


def verify_all(
    paths: Sequence[str | Path],
    head: str | None = None,
    key: Key | None = None,
    anchor: str | Path | None = None,
) -> list[VerifyReport]:
    """As `verify`, for a log and the older files that it was rotated to, which share an anchor."""
    if anchor is None:
        return [walk(str(path), lines(Path(path)), [head or ""], key).report(head) for path in paths]
    seals = [record for record in history(anchor) if isinstance(record, Anchored)]
    heads = {head or "", *(seal.head for seal in seals), *(seal.pruned for seal in seals)}
    chains = [walk(str(path), lines(Path(path)), heads, key) for path in paths]
    return compare(chains, seals, walk(str(anchor), lines(Path(anchor)), (), key), head)


def lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it is whole. Raises AuditError."""
    try:
        if sqlite.is_database(path):
            yield from ((line, True) for line in sqlite.lines(path))
            return
        with path.open("rb") as file:
            yield from ((line.removesuffix(b"\n"), line.endswith(b"\n")) for line in file)
    except OSError as error:
        raise AuditError.about(path, error) from error
