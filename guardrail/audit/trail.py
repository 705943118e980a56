"""Writes to all audit sinks of a guard, and handles records that cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from guardrail.audit.keys import Key, alias, load_key
from guardrail.errors import AuditError, outline
from guardrail.plugins.audit import AuditRecord, AuditSettings, AuditSink, Change, ChangeSink

log = logging.getLogger("guardrail")

R = TypeVar("R", AuditRecord, Change)


@dataclass
class AuditTrail:
    """Writes every record to every sink. `dropped` counts the records lost under `on_error: drop`.

    Sinks get conversation ids and tags under another name unless `clear` lists them.
    """

    sinks: Mapping[str, AuditSink]
    settings: AuditSettings
    dropped: int = 0
    _key: Key | None = field(init=False, repr=False)
    _warned: set[str] = field(default_factory=set[str], repr=False)

    def __post_init__(self) -> None:
        self._key = load_key(self.settings.key)

    def decided(self, record: AuditRecord) -> None:
        """Call before the first byte of the reply. Raises AuditError unless records may be dropped."""
        hidden = self._hidden(record) if self.sinks else record
        for sink in self.sinks.values():
            self._write(sink, sink.decided, hidden)

    def finished(self, record: AuditRecord) -> None:
        """Call at the end of the request. Raises AuditError unless records may be dropped."""
        hidden = self._hidden(record) if self.sinks else record
        for sink in self.sinks.values():
            self._write(sink, sink.finished, hidden)

    def changed(self, change: Change) -> None:
        """Call before a change takes effect. Raises AuditError unless records may be dropped."""
        for sink in self.sinks.values():
            if isinstance(sink, ChangeSink):
                self._write(sink, sink.changed, change)

    def close(self) -> None:
        """Close every sink."""
        for sink in self.sinks.values():
            sink.close()

    def _hidden(self, record: AuditRecord) -> AuditRecord:
        clear, conversation, tags = self.settings.clear, record.conversation, record.tags
        if conversation and "conversation" not in clear:
            conversation = alias(conversation, self._key)
        if tags and "tags" not in clear:
            tags = tuple(sorted(alias(tag, self._key) for tag in tags))
        return replace(record, conversation=conversation, tags=tags)

    def _write(self, sink: AuditSink, write: Callable[[R], None], record: R) -> None:
        try:
            write(record)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # a plugin's error may quote the record, and with it the prompt
            said = str(error) if isinstance(error, AuditError) else outline(error)
            if self.settings.on_error == "block":
                raise AuditError(f"audit sink `{sink.name}`: {said}") from error
            self.dropped += 1
            if sink.name not in self._warned:
                log.warning("audit sink %s dropped a record: %s", sink.name, said)
            self._warned.add(sink.name)
