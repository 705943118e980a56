"""Which requests the dashboard shows: those of the audit log, or, without one, those since the start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.audit.lines import GENESIS, Kind, encode
from guardrail.plugins.audit import AuditRecord, AuditSink
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve.dashboard.recent import Recent

if TYPE_CHECKING:
    from guardrail.guard import Guard

log = logging.getLogger("guardrail.serve")


class Unlogged:
    """A plugin: remembers the numbers of requests, not their texts, for a guard that keeps no audit log."""

    name = "dashboard"

    def __init__(self) -> None:
        self.recent = Recent(None)
        self._needed = True

    @hookimpl
    def guardrail_audit_sinks(self) -> Sequence[AuditSink]:
        """This object: it hears of every request."""
        return [self]

    @hookimpl
    def guardrail_startup(self, guard: Guard) -> None:
        """Look whether there is a log."""
        self._needed = log_of(guard) is None

    def decided(self, record: AuditRecord) -> None:
        """A decision."""
        self._add("decision", record)

    def finished(self, record: AuditRecord) -> None:
        """An outcome."""
        self._add("outcome", record)

    def close(self) -> None:
        """What was remembered is still there."""

    def _add(self, kind: Kind, record: AuditRecord) -> None:
        if not self._needed:
            return
        try:
            self.recent.add(encode(kind, record, GENESIS))
        except Exception as error:
            # a page that lacks a request must not stop it
            log.warning("the dashboard lacks a request: %s", type(error).__name__)


def log_of(guard: Guard) -> Path | None:
    """The log that the guard writes; SQLite if there are two."""
    settings = guard.audit.settings
    name = settings.sqlite or settings.jsonl
    return None if name is None else Path(name)


def recent_of(guard: Guard) -> Recent:
    """The newest requests of a guard."""
    path = log_of(guard)
    if path is not None:
        return Recent(path)
    known = next((sink for sink in guard.audit.sinks.values() if isinstance(sink, Unlogged)), None)
    return Recent(None) if known is None else known.recent
