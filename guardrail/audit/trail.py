"""Writes to all audit sinks of a guard, and handles records that cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from guardrail.audit.keys import Key, alias, load_key
from guardrail.errors import AuditError, outline
from guardrail.plugins.audit import (
    AuditRecord,
    AuditSettings,
    AuditSink,
    Change,
    ChangeSink,
    Review,
    ReviewSink,
)

log = logging.getLogger("guardrail")

R = TypeVar("R", AuditRecord, Change, Review)


@dataclass
class AuditTrail:
    """Writes every record to every sink, even if one of them fails.

    `failures` counts the writes that failed, `dropped` those lost under `on_error: drop`; `failing` says why
    the latest record was not written everywhere, and is None if it was. Sinks get conversation ids and tags
    under another name unless `clear` lists them.
    """

    sinks: Mapping[str, AuditSink]
    settings: AuditSettings
    dropped: int = 0
    failures: int = 0
    failing: str | None = None
    errors: int = 0
    """Requests whose prompt could not be evaluated, or whose reply failed."""
    _key: Key | None = field(init=False, repr=False)
    _warned: set[str] = field(default_factory=set[str], repr=False)

    def __post_init__(self) -> None:
        self._key = load_key(self.settings.key)

    def decided(self, record: AuditRecord) -> None:
        """Call before the first byte of the reply. Raises AuditError unless records may be dropped."""
        if self.sinks:
            self._write([(sink.name, sink.decided) for sink in self.sinks.values()], self._hidden(record))

    def finished(self, record: AuditRecord) -> None:
        """Call at the end of the request. Raises AuditError unless records may be dropped."""
        status = record.decision.status
        self.errors += status == "error" or (status == "evaluated" and record.outcome == "error")
        if self.sinks:
            self._write([(sink.name, sink.finished) for sink in self.sinks.values()], self._hidden(record))

    def changed(self, change: Change) -> None:
        """Call before a change takes effect. Raises AuditError unless records may be dropped."""
        sinks = self.sinks.values()
        self._write([(sink.name, sink.changed) for sink in sinks if isinstance(sink, ChangeSink)], change)

    def reviewed(self, review: Review) -> None:
        """Call once a person has decided on a ticket. Raises AuditError unless records may be dropped."""
        sinks = self.sinks.values()
        self._write([(sink.name, sink.reviewed) for sink in sinks if isinstance(sink, ReviewSink)], review)

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

    def _write(self, writes: Sequence[tuple[str, Callable[[R], None]]], record: R) -> None:
        failed = [error for sink, write in writes if (error := _failure(sink, write, record))]
        if writes:
            self.failing = str(failed[0]) if failed else None
        self.failures += len(failed)
        if failed and self.settings.on_error == "block":
            raise failed[0]
        self.dropped += len(failed)
        for error in failed:
            self._warn(error)

    def _warn(self, error: AuditError) -> None:
        """Once for each sink."""
        sink = str(error).partition(":")[0]
        if sink not in self._warned:
            log.warning("a record was dropped: %s", error)
        self._warned.add(sink)


def _failure(sink: str, write: Callable[[R], None], record: R) -> AuditError | None:
    try:
        write(record)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # a plugin's error may quote the record, and with it the prompt
        failure = AuditError(
            f"audit sink `{sink}`: {error if isinstance(error, AuditError) else outline(error)}"
        )
        failure.__cause__ = error
        return failure
    return None
