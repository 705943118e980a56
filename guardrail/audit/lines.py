"""Writes each event as one line of JSON, which holds the SHA-256 of the previous line in the same file.

An edited, missing or torn line breaks the chain at the next line. The chain cannot show that whole lines were
cut off at the end: keep `VerifyReport.head` in another place to detect that too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from guardrail.files.records import (
    Json,
    decision_from_json,
    decision_to_json,
    messages_from_json,
    messages_to_json,
    pick,
)
from guardrail.plugins.audit import AuditRecord
from guardrail.types import Timing

VERSION = 1
GENESIS = "0" * 64
"""The `prev` of the first line."""
OLD_REPLY_DECISION = "response"
"""The former name of `reply_decision`, which older logs still contain."""

Kind: TypeAlias = Literal["decision", "outcome"]
FIELDS = (
    "id",
    "time",
    "kind",
    "prompt_sha256",
    "prompt_tokens",
    "conversation",
    "tags",
    "fingerprint",
    "outcome",
    "ticket_id",
    "attempts",
    "steered_passes",
    "new_tokens",
    "text_sha256",
    "error",
)
TIMING_FIELDS = ("guard", "prefill", "queue", "total")


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log: an event of one request."""

    kind: Kind
    record: AuditRecord


def encode(kind: Kind, record: AuditRecord, prev: str) -> bytes:
    """The line without its newline."""
    event = {"v": VERSION, "event": kind, "prev": prev, "record": record_to_json(record)}
    return json.dumps(event, separators=(",", ":"), allow_nan=False).encode("ascii")


def line_hash(line: bytes) -> str:
    """The hash that the next line must have as its `prev`."""
    return hashlib.sha256(line).hexdigest()


def decode(line: bytes) -> Event | None:
    """The event, or None if the line is not an audit event."""
    try:
        event = json.loads(line)
        if event["v"] != VERSION or event["event"] not in ("decision", "outcome"):
            return None
        return Event(event["event"], record_from_json(event["record"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def prev_of(line: bytes) -> str | None:
    """The hash of the previous line, as this line states it."""
    try:
        return json.loads(line)["prev"]
    except (ValueError, KeyError, TypeError):
        return None


def record_to_json(record: AuditRecord) -> Json:
    """The fields that a log may hold; messages and text only if the record has them."""
    row = pick(record, FIELDS) | {
        "decision": decision_to_json(record.decision),
        "timing": pick(record.timing, TIMING_FIELDS),
    }
    if record.reply_decision is not None:
        row["reply_decision"] = decision_to_json(record.reply_decision)
    if record.messages is not None:
        row["messages"] = messages_to_json(record.messages)
    if record.text is not None:
        row["text"] = record.text
    return row


def record_from_json(row: dict[str, Any]) -> AuditRecord:
    """A record as it was written."""
    fields = {name: row[name] for name in FIELDS if name in row}
    fields["tags"] = tuple(fields.get("tags", ()))
    messages = row.get("messages")
    reply_decision = row.get("reply_decision") or row.get(OLD_REPLY_DECISION)
    return AuditRecord(
        **fields,
        decision=decision_from_json(row["decision"]),
        timing=Timing(**{name: row["timing"][name] or 0.0 for name in TIMING_FIELDS}),
        messages=None if messages is None else messages_from_json(messages),
        text=row.get("text"),
        reply_decision=None if reply_decision is None else decision_from_json(reply_decision),
    )
