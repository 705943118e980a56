"""What a response says about the guard: headers, and the field `guardrail` of the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from guardrail.files.decision_rows import decision_row, response_row
from guardrail.types import ALLOW, Decision, Reply, Status, Timing

if TYPE_CHECKING:
    from guardrail.pipeline.ruling import Ruling
    from guardrail.pipeline.stream import ReplyStream


HEADERS = tuple(
    f"x-guardrail-{part}"
    for part in (
        "action",
        "policy",
        "status",
        "reason",
        "audit-id",
        "ticket-id",
        "answered-by",
        "lifted",
        "ms",
    )
)


class Wishes(BaseModel):
    """The field `guardrail` of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    decision: bool = False
    """The response holds the whole decision."""


class GuardrailField(BaseModel):
    """The field `guardrail` of a response's body."""

    action: str
    policy: str | None
    status: str
    audit_id: str
    ticket_id: str | None = None
    answered_by: str | None = None
    """Who answered in the model's place: `person`, or `model:NAME`."""
    lifted: list[str] | None = None
    """The policies that a person has lifted for this prompt."""
    reason: str | None = None
    """What could not be read, if the prompt was not evaluated for it."""
    decisions: list[dict[str, Any]] | None = None
    """On request: every decision, in the form of `guardrail check --json`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decisions behind one reply, the last one last."""

    audit_id: str
    decisions: Sequence[Decision]
    timing: Timing
    reply_decision: Decision | None = None
    ticket_id: str | None = None
    answered_by: str | None = None
    lifted: Sequence[str] = ()

    @classmethod
    def of(cls, reply: Reply) -> Verdict:
        """Of a whole reply."""
        decisions = (*reply.earlier, reply.decision)
        return cls(
            reply.audit_id,
            decisions,
            reply.timing,
            reply.reply_decision,
            reply.ticket_id,
            reply.answered_by,
            reply.lifted,
        )

    @classmethod
    def begun(cls, stream: ReplyStream) -> Verdict:
        """Of a reply that has its decision, and may still be coming."""
        if stream.reply is not None:
            return cls.of(stream.reply)
        return cls(
            stream.audit_id,
            stream.decisions,
            stream.timing,
            ticket_id=stream.ticket_id,
            lifted=stream.lifted,
        )

    @classmethod
    def ruled(cls, ruling: Ruling) -> Verdict:
        """Of a prompt that goes to another model, or does not."""
        decisions = (*ruling.earlier, ruling.decision)
        ticket_id, lifted = ruling.ticket_id, ruling.lifted
        return cls(ruling.audit_id, decisions, ruling.timing, ticket_id=ticket_id, lifted=lifted)

    @property
    def every(self) -> Sequence[Decision]:
        """The decisions on the prompt, then the one on the reply, if there is one."""
        return (*self.decisions, *([self.reply_decision] if self.reply_decision else []))

    @property
    def status(self) -> Status:
        """`error` if any decision failed, even if others did not: policies may have let the prompt pass."""
        return "error" if any(one.status == "error" for one in self.every) else self.telling.status

    @property
    def telling(self) -> Decision:
        """The last decision that was more than to allow, and stands; if there is none, the last one."""
        standing = (decision for decision in reversed(self.every) if decision.policy not in self.lifted)
        stronger = (decision for decision in standing if decision.done != ALLOW)
        return next(stronger, self.every[-1])

    @property
    def policy(self) -> str | None:
        """The policy behind `telling`. None has fired on what was not read."""
        return None if self.telling.status == "not_evaluated" else self.telling.policy

    @property
    def reason(self) -> str | None:
        """What could not be read. It names kinds of content and holds no text of users."""
        return self.telling.error if self.telling.status == "not_evaluated" else None

    @property
    def headers(self) -> dict[str, str]:
        """Of the response."""
        decision = self.telling
        values = (
            decision.done,
            self.policy,
            self.status,
            self.reason,
            self.audit_id,
            self.ticket_id,
            self.answered_by,
            ", ".join(self.lifted),
            f"{self.timing.guard:.3f}",
        )
        return {name: _header(value) for name, value in zip(HEADERS, values, strict=True) if value}

    def field(self, whole: bool) -> GuardrailField | None:
        """The field of the body: only for what was more than allowed, or if the whole decision is wanted."""
        decision = self.telling
        told = whole or self.lifted or any(one.otherwise for one in self.every)
        if not told and (decision.done, self.status) == (ALLOW, "evaluated"):
            return None
        return GuardrailField(
            action=decision.done,
            policy=self.policy,
            status=self.status,
            reason=self.reason,
            audit_id=self.audit_id,
            ticket_id=self.ticket_id,
            answered_by=self.answered_by,
            lifted=list(self.lifted) or None,
            decisions=self._rows() if whole else None,
        )

    def _rows(self) -> list[dict[str, Any]]:
        *earlier, last = self.decisions
        rows = [decision_row(decision, self.audit_id, None) for decision in earlier]
        row = decision_row(last, self.audit_id, self.timing)
        return [*rows, {**row, "reply_decision": response_row(self.reply_decision)}]


def _header(text: str) -> str:
    """As a header can carry it: plugins may name policies and actions as they like."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)
