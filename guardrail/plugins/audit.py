"""What an audit sink gets and implements: the settings, the records, the interfaces. No logic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from guardrail.types import Decision, Message, Outcome, TicketState, Timing

ReviewState: TypeAlias = TicketState | Literal["refused"]
ChangeKind: TypeAlias = Literal["started", "policies_changed", "model_changed", "stopped"]


class Section(BaseModel):
    """A part of the `audit` section."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class KeySource(Section):
    """Where the secret is that signs the records: an environment variable, or a file."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give exactly one of `env` and `file`")
        return self


class AnchorSettings(Section):
    """A second file, best on another machine, to which the state of a log is sealed every so often."""

    file: str
    every_s: Annotated[float, Field(ge=0.0)] = 60.0


class AuditSettings(Section):
    """Where audit records go, what they hold, and what happens if they cannot be written."""

    jsonl: str | None = None
    sqlite: str | None = None
    text: bool = False
    clear: Annotated[tuple[Literal["conversation", "tags"], ...], Field(strict=False)] = ()
    key: KeySource | None = None
    anchor: AnchorSettings | None = None
    on_error: Literal["block", "drop"] = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """The record of one request. Written with the decision, completed with the outcome.

    `time` is when the request came and `ended` when it got its outcome, None if it never did: it is shown as
    `interrupted`. Hashes and scores are always kept, `messages` and `text` only on request. `reviewer` is the
    person who decided on the ticket while the request waited.
    """

    id: str
    time: str
    kind: Literal["chat", "stream", "check", "ruling", "generate"]
    decision: Decision
    prompt_sha256: str
    prompt_tokens: int
    conversation: str = ""
    tags: tuple[str, ...] = ()
    fingerprint: str = ""
    messages: tuple[Message, ...] | None = None
    timing: Timing = field(default_factory=Timing)
    outcome: Outcome | None = None
    ended: str | None = None
    ticket_id: str | None = None
    reviewer: str | None = None
    answered_by: str | None = None
    """Who answered in the model's place: `person`, or `model:NAME`."""
    lifted: tuple[str, ...] = ()
    """The policies that a person has lifted for this prompt."""
    attempts: int = 1
    steered_passes: int = 0
    new_tokens: int = 0
    finish: tuple[str, ...] = ()
    """Why each reply of the model ended. Told to sinks; the built-in logs do not keep it."""
    text_sha256: str | None = None
    text: str | None = None
    error: str | None = None
    reply_decision: Decision | None = None
    """The decision on the reply, if response policies followed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What decides from `time` on: written when a guard starts and stops, and when anything of it changes.

    `changed` names the fields that are not what the record before this one of the same guard says; `note`
    says in words what has changed in the model.
    """

    id: str
    time: str
    event: ChangeKind
    policy_sha256: str
    vectors_sha256: str
    calibration_sha256: str
    fingerprint: str
    versions: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a person decided on a ticket. `refused`: they were not let decide, for a `reason` (a code).

    `reviewer` is empty if it is not known who that was. `times`: how many attempts of unknown people this
    stands for, if there were too many to record each.
    """

    time: str
    ticket_id: str
    state: ReviewState
    reviewer: str
    reason: str = ""
    times: int = 1


@runtime_checkable
class AuditSink(Protocol):
    """Stores audit records. `decided` and `finished` return only once the record is stored."""

    name: str

    def decided(self, record: AuditRecord) -> None: ...
    def finished(self, record: AuditRecord) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class ChangeSink(Protocol):
    """What an audit sink may implement besides, to keep changes as well."""

    def changed(self, change: Change) -> None: ...


@runtime_checkable
class ReviewSink(Protocol):
    """What an audit sink may implement besides, to keep what people decide on tickets."""

    def reviewed(self, review: Review) -> None: ...
