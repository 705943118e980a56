"""Writes to all audit sinks of a guard, and handles records that cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from guardrail.errors import AuditError, outline
from guardrail.plugins.audit import AuditRecord, AuditSettings, AuditSink

log = logging.getLogger("guardrail")


@dataclass
class AuditTrail:
    """Writes every record to every sink. `dropped` counts the records lost under `on_error: drop`."""

    sinks: Mapping[str, AuditSink]
    settings: AuditSettings
    dropped: int = 0
    _warned: set[str] = field(default_factory=set[str], repr=False)

    def decided(self, record: AuditRecord) -> None:
        """Call before the first byte of the reply. Raises AuditError unless records may be dropped."""
        for sink in self.sinks.values():
            self._write(sink, sink.decided, record)

    def finished(self, record: AuditRecord) -> None:
        """Call at the end of the request. Raises AuditError unless records may be dropped."""
        for sink in self.sinks.values():
            self._write(sink, sink.finished, record)

    def close(self) -> None:
        """Close every sink."""
        for sink in self.sinks.values():
            sink.close()

    def _write(self, sink: AuditSink, write: Callable[[AuditRecord], None], record: AuditRecord) -> None:
        try:
            write(record)
        except Exception as error:
            # a plugin's error may quote the record, and with it the prompt
            said = str(error) if isinstance(error, AuditError) else outline(error)
            if self.settings.on_error == "block":
                raise AuditError(f"audit sink `{sink.name}`: {said}") from error
            self.dropped += 1
            if sink.name not in self._warned:
                log.warning("audit sink %s dropped a record: %s", sink.name, said)
            self._warned.add(sink.name)
