"""What the audit log knows of a ticket's conversation before the ticket."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.audit.lines import decode
from guardrail.audit.reading import lines
from guardrail.audit.sinks import ChainedSink
from guardrail.errors import AuditError
from guardrail.plugins.audit import AuditRecord, AuditSink
from guardrail.types import Ticket

MOST = 20
"""How many of the latest requests are shown."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The requests, oldest first; `problem` says why there may be more of which nothing is known."""

    records: Sequence[AuditRecord] = ()
    problem: str = ""
    more: int = 0


def earlier(sinks: Mapping[str, AuditSink], ticket: Ticket) -> Earlier:
    """What came before a ticket in its conversation. Reads the whole log twice: call it in a thread."""
    path = next((sink.path for sink in sinks.values() if isinstance(sink, ChainedSink)), None)
    if path is None:
        return Earlier(problem="This server keeps no audit log as a file, so earlier requests are not known.")
    try:
        return _earlier(path, ticket)
    except AuditError:
        return Earlier(problem="The audit log could not be read, so earlier requests are not known.")


def _earlier(path: Path, ticket: Ticket) -> Earlier:
    own = _own(path, ticket)
    if own is None:
        return Earlier(problem="The audit log has no record of this request.")
    found = dict[str, AuditRecord]()
    for record in _records(path, own.conversation):
        if record.conversation == own.conversation and record.time < own.time and record.id != own.id:
            found[record.id] = record
    latest = deque(found.values(), maxlen=MOST)
    return Earlier(tuple(latest), more=len(found) - len(latest))


def _own(path: Path, ticket: Ticket) -> AuditRecord | None:
    """The record of the request that opened the ticket; while that waits, the record does not name it."""
    known = None
    for record in _records(path, ticket.id, ticket.prompt_sha256 or ticket.id):
        if record.ticket_id == ticket.id and record.time <= ticket.created:
            return record
        if record.prompt_sha256 == ticket.prompt_sha256 and record.time <= ticket.created:
            known = record
    return known


def _records(path: Path, *texts: str) -> Iterator[AuditRecord]:
    """The records of requests in whose lines one of these texts stands: few are worth decoding."""
    wanted = [json.dumps(text).encode() for text in texts]
    for line, _ in lines(path):
        event = decode(line) if any(text in line for text in wanted) else None
        if event is not None and isinstance(event.record, AuditRecord):
            yield event.record
