"""What the dashboard takes from a line of the audit log: scores, actions, times. Never a text.

`audit.lines.decode` checks every field of a record and takes many times as long; here only the fields that
are shown are checked, while they are parsed.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from guardrail.audit.lines import OLD_REPLY_DECISION, VERSION, decode
from guardrail.plugins.audit import Change

ID = b'"record":{"id":"'


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ScoreRow(_Row):
    """One condition of one policy; numbers that were not finite are missing."""

    policy: str
    trait: str
    layer: int | None = None
    score: float | None = None
    threshold: float | None = None
    fired: bool
    mode: str


class DecisionRow(_Row):
    """A decision."""

    status: str
    action: str = "allow"
    would_action: str = "allow"
    policy: str | None = None
    fired: tuple[str, ...] = ()
    scores: tuple[ScoreRow, ...] = ()
    policy_sha256: str = ""
    vectors_sha256: str = ""
    calibration_sha256: str = ""
    error: str | None = None
    otherwise: str | None = None


class TimingRow(_Row):
    """Milliseconds."""

    guard: float | None = 0.0
    prefill: float | None = 0.0
    queue: float | None = 0.0
    total: float | None = 0.0


class RequestRow(_Row):
    """A request, with its outcome if it has one."""

    id: str
    time: str
    kind: str
    decision: DecisionRow
    prompt_sha256: str
    fingerprint: str = ""
    timing: TimingRow = TimingRow()
    outcome: str | None = None
    error: str | None = None
    reply_decision: DecisionRow | None = Field(
        None, validation_alias=AliasChoices("reply_decision", OLD_REPLY_DECISION)
    )

    @property
    def final(self) -> DecisionRow:
        """The decision that the client met: that on the reply if it did something."""
        reply = self.reply_decision
        return self.decision if reply is None or reply.action == "allow" else reply


class Line(_Row):
    """A line about a request."""

    v: Literal[1]
    event: Literal["decision", "outcome"]
    record: RequestRow


class _Version(BaseModel):
    v: int


Unreadable: TypeAlias = Literal["damaged", "version"]
"""A line that is no record of this version: because it is damaged, or because it is of another version."""


def parse(line: bytes) -> Line | Change | Unreadable | None:
    """A line about a request or a change; None for a sound line about anything else."""
    try:
        return Line.model_validate_json(line)
    except ValidationError:
        event = decode(line)
    if event is None:
        return "version" if _version(line) not in (None, VERSION) else "damaged"
    return event.record if isinstance(event.record, Change) else None


def _version(line: bytes) -> int | None:
    try:
        return _Version.model_validate_json(line).v
    except ValidationError:
        return None


def id_of(line: bytes) -> str | None:
    """The id of a request without parsing its line, if the line is written as usual."""
    start = line.find(ID, 0, 400)
    end = line.find(b'"', start + len(ID), start + len(ID) + 100)
    return None if start < 0 or end < 0 else line[start + len(ID) : end].decode("ascii", "replace")
