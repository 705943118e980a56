"""Writes each event as one line of JSON, which holds the SHA-256 of the previous line in the same file.

An edited, missing or torn line breaks the chain at the next line. With a key, every line is signed as well
(`mac`, HMAC-SHA256 over the rest of the line). What that proves, and what not: `README.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from guardrail.audit.keys import Key
from guardrail.files.json_text import decoded
from guardrail.files.records import (
    Json,
    checked,
    decision_from_json,
    decision_to_json,
    keep,
    messages_from_json,
    messages_to_json,
    new_id,
    pick,
)
from guardrail.plugins.audit import AuditRecord, Change, Review
from guardrail.types import Timing

VERSION = 1
GENESIS = "0" * 64
"""The `prev` of the first line."""
OLD_REPLY_DECISION = "response"
"""The former name of `reply_decision`, which older logs still contain."""

Kind: TypeAlias = Literal["decision", "outcome", "change", "review", "pruning", "anchor", "evidence"]
TEXTS = ("id", "time", "kind", "prompt_sha256", "conversation", "fingerprint")
COUNTS = ("prompt_tokens", "attempts", "steered_passes", "new_tokens")
FIELDS = (
    *TEXTS,
    *COUNTS,
    "tags",
    "outcome",
    "ended",
    "ticket_id",
    "reviewer",
    "answered_by",
    "lifted",
    "text_sha256",
    "error",
)
TIMING_FIELDS = ("guard", "prefill", "queue", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """Old lines were removed. The first line of a pruned log says so, and one later line, in the chain.

    `removed` lines in all are missing since the log began, the last of which has the hash `last`. `chain`
    names the log by the hash of the line that it began with. All that came before `until` is gone.
    """

    time: str
    until: str
    removed: int
    last: str
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """A line of an anchor: at `time` the log at the path `log`, called `chain`, ended with the line `head`.

    `pruned`: the hash of the last line that was pruned, in the seal that follows a pruning.
    """

    time: str
    log: str
    chain: str
    head: str
    pruned: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line of an evidence file: at `time`, `what` was measured, or measured with, in plain data."""

    time: str
    what: str
    content: Mapping[str, Any]


OtherRecord: TypeAlias = Change | Review | Pruning | Anchored | Evidence
Record: TypeAlias = AuditRecord | OtherRecord
OTHERS: Mapping[Kind, type[OtherRecord]] = {
    "change": Change,
    "review": Review,
    "pruning": Pruning,
    "anchor": Anchored,
    "evidence": Evidence,
}


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Event(Generic[R]):
    """One line of the log: an event of one request (`decision`, `outcome`), or of the log and its guard."""

    kind: Kind
    record: R


def encode(kind: Kind, record: Record, prev: str, key: Key | None = None) -> bytes:
    """The line without its newline, signed if there is a key."""
    row = record_to_json(record) if isinstance(record, AuditRecord) else _row(record)
    event = {"v": VERSION, "event": kind, "prev": prev, "record": row}
    if prev == GENESIS:
        # two logs of one guard begin with the same record, and must not be taken for each other
        event["log"] = new_id()
    line = json.dumps(event, separators=(",", ":"), allow_nan=False).encode("ascii")
    return line if key is None else key.signed(line)


def _row(record: OtherRecord) -> Json:
    row = asdict(record)
    if isinstance(record, Review) and record.times == 1:
        # as every line of older logs
        del row["times"]
    return row


def line_hash(line: bytes) -> str:
    """The hash that the next line must have as its `prev`."""
    return hashlib.sha256(line).hexdigest()


def chain_of(first: bytes) -> str:
    """What a log is called, given its first line: the hash of the line that it began with."""
    event = decode(first)
    pruned = event is not None and isinstance(event.record, Pruning)
    return event.record.chain if pruned else line_hash(first)  # type: ignore[union-attr]


def decode(line: bytes) -> Event[Record] | None:
    """The event, or None if the line is not an audit event."""
    try:
        event = decoded(line)
        kind = event["event"]
        if event["v"] != VERSION:
            return None
        if kind in OTHERS:
            return Event(kind, _other(OTHERS[kind], event["record"]))
        known = kind in ("decision", "outcome")
        return Event(kind, record_from_json(event["record"])) if known else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def prev_of(line: bytes) -> str | None:
    """The hash of the previous line, as this line states it."""
    try:
        return json.loads(line)["prev"]
    except (ValueError, KeyError, TypeError, RecursionError):
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
    """A record as it was written. Raises ValueError, KeyError or TypeError for anything else."""
    found = checked(AuditRecord, row, FIELDS)
    messages = row.get("messages")
    reply_decision = row.get("reply_decision") or row.get(OLD_REPLY_DECISION)
    record = AuditRecord(
        **found,
        decision=decision_from_json(row["decision"]),
        timing=Timing(**{name: float(row["timing"][name] or 0.0) for name in TIMING_FIELDS}),
        messages=None if messages is None else messages_from_json(messages),
        text=row.get("text"),
        reply_decision=None if reply_decision is None else decision_from_json(reply_decision),
    )
    return _typed(record, TEXTS, COUNTS)


def _other(kind: type[OtherRecord], row: Mapping[str, Any]) -> OtherRecord:
    names = [field.name for field in fields(kind)]
    record = kind(**keep(row, names))
    numbers = [name for name in names if name in ("removed", "times")]
    others = ("versions", "changed", "content")
    return _typed(record, [name for name in names if name not in (*others, *numbers)], numbers)


def _typed(record: R, texts: Sequence[str], numbers: Sequence[str]) -> R:
    """The record. Raises TypeError if a field that others compare or sort by is of another type."""
    wrong = [name for name in texts if not isinstance(getattr(record, name), str)]
    wrong += [name for name in numbers if not isinstance(getattr(record, name), int)]
    if wrong:
        raise TypeError(f"`{wrong[0]}` has the wrong type")
    return record
