"""What the audit log knows of a ticket's conversation before the ticket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.audit.following import Follower
from guardrail.audit.lines import decode
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
    more: bool = False
    """Whether there are older ones, which are not shown."""


def earlier(sinks: Mapping[str, AuditSink], ticket: Ticket) -> Earlier:
    """What came before a ticket in its conversation. Reads the log once, from its end, so use a thread."""
    path = next((sink.path for sink in sinks.values() if isinstance(sink, ChainedSink)), None)
    if path is None:
        return Earlier(problem="This server keeps no audit log as a file, so earlier requests are not known.")
    found = _Found(ticket)
    try:
        for record in _records(path, found):
            if found.take(record):
                break
    except AuditError:
        return Earlier(problem="The audit log could not be read, so earlier requests are not known.")
    if found.own is None:
        return Earlier(problem="The audit log has no record of this request.")
    latest = list(found.records.values())[:MOST]
    return Earlier(tuple(reversed(latest)), more=len(found.records) > MOST)


class _Found:
    """What a way through the log backwards has found: the ticket's own request, then those before it."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self.own: AuditRecord | None = None
        self.records = dict[str, AuditRecord]()
        self.wanted = _written(ticket.id, ticket.prompt_sha256 or ticket.id)
        """Lines without one of these are of no use."""

    def take(self, record: AuditRecord) -> bool:
        """Keep a record if it is of use. Whether enough is known."""
        own = self.own
        if self._opened(record) and (own is None or own.conversation != record.conversation):
            self.own, self.records = record, {}
            ticket = self._ticket
            self.wanted = _written(ticket.id, ticket.prompt_sha256 or ticket.id, record.conversation)
        elif own is not None and _before(record, own):
            # of several events of one request the latest says most
            self.records.setdefault(record.id, record)
        return len(self.records) > MOST

    def _opened(self, record: AuditRecord) -> bool:
        """Whether this request opened the ticket; while that waits, no record names it."""
        if record.time > self._ticket.created:
            return False
        same = record.prompt_sha256 == self._ticket.prompt_sha256
        return record.ticket_id == self._ticket.id or (self.own is None and same)


def _before(record: AuditRecord, own: AuditRecord) -> bool:
    return record.conversation == own.conversation and record.time < own.time and record.id != own.id


def _written(*texts: str) -> Sequence[bytes]:
    """Texts as they stand in lines."""
    return [json.dumps(text).encode() for text in texts]


def _records(path: Path, found: _Found) -> Iterator[AuditRecord]:
    """The requests in whose lines one of the texts stands, newest first: few are worth decoding."""
    log = Follower(path)
    log.replaced()
    for line in log.older():
        event = decode(line) if any(text in line for text in found.wanted) else None
        if event is not None and isinstance(event.record, AuditRecord):
            yield event.record
