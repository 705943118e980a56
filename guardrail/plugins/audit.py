"""What an audit sink gets and implements: the settings, the record of a request, the interface. No logic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel

from guardrail.types import Decision, Message, Outcome, Timing


class AuditSettings(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """Where audit records go, and what happens if they cannot be written."""

    jsonl: str | None = None
    sqlite: str | None = None
    text: bool = False
    on_error: Literal["block", "drop"] = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """The record of one request. Written with the decision, completed with the outcome.

    `outcome` None means that the request never ended and is shown as `interrupted`. Hashes and scores are
    always kept, `messages` and `text` only on request.
    """

    id: str
    time: str
    kind: Literal["chat", "stream", "check", "generate"]
    decision: Decision
    prompt_sha256: str
    prompt_tokens: int
    conversation: str = ""
    tags: tuple[str, ...] = ()
    fingerprint: str = ""
    messages: tuple[Message, ...] | None = None
    timing: Timing = field(default_factory=Timing)
    outcome: Outcome | None = None
    ticket_id: str | None = None
    attempts: int = 1
    steered_passes: int = 0
    new_tokens: int = 0
    text_sha256: str | None = None
    text: str | None = None
    error: str | None = None
    reply_decision: Decision | None = None
    """The decision on the reply, if response policies followed it."""


@runtime_checkable
class AuditSink(Protocol):
    """Stores audit records. `decided` and `finished` return only once the record is stored."""

    name: str

    def decided(self, record: AuditRecord) -> None: ...
    def finished(self, record: AuditRecord) -> None: ...
    def close(self) -> None: ...
