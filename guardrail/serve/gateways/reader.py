"""What every door says about a prompt that goes to another model, and how it asks the guard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, Self

from pydantic import BaseModel

from guardrail.engines import Engine
from guardrail.errors import PromptError
from guardrail.pipeline.options import RequestOptions
from guardrail.pipeline.ruling import Ruling
from guardrail.serve.service import Service
from guardrail.serve.verdict import Verdict
from guardrail.types import Message, Messages


class ReaderVerdict(BaseModel):
    """Whether the prompt may go on, by what `reader_model` makes of it, with thresholds made for it."""

    verdict: Literal["pass", "refuse"]
    reader_model: str
    status: str
    action: str
    would_action: str
    policy: str | None
    audit_id: str
    ticket_id: str | None
    lifted: list[str]
    """The policies that a person has lifted for this prompt."""
    warnings: list[str]
    error: str | None

    @classmethod
    def of(cls, ruling: Ruling, reader: str) -> Self:
        """Of a ruling. What it says about the decision is that of `Verdict.telling`."""
        decision = Verdict.ruled(ruling).telling
        return cls(
            verdict="pass" if ruling.passes else "refuse",
            reader_model=reader,
            status=decision.status,
            action=decision.done,
            would_action=decision.would_action,
            policy=decision.policy,
            audit_id=ruling.audit_id,
            ticket_id=ruling.ticket_id,
            lifted=list(ruling.lifted),
            warnings=list(ruling.decision.warnings),
            error=decision.error,
        )

    @property
    def reason(self) -> str:
        """One line for a gateway's log. It holds no text of the prompt."""
        found = {
            "reader_model": self.reader_model,
            "action": self.action,
            "policy": self.policy,
            "status": None if self.status == "evaluated" else self.status,
            "error": self.error,
            "audit_id": self.audit_id,
            "ticket_id": self.ticket_id,
            "lifted": ", ".join(self.lifted),
        }
        return "; ".join(f"{name}: {value}" for name, value in found.items() if value)

    @property
    def code(self) -> str:
        """Of an error in the shape of the OpenAI API."""
        if self.status == "not_evaluated":
            return "guardrail_not_evaluated"
        return "guardrail_blocked" if self.ticket_id is None else "guardrail_escalated"


def said(ruling: Ruling) -> str | None:
    """What whoever sent a refused prompt is told: with the ticket, or what could not be read."""
    if ruling.text is None:
        return None
    notes = [f"ticket {ruling.ticket_id}"] if ruling.ticket_id else []
    if ruling.decision.status == "not_evaluated" and ruling.decision.error:
        notes.append(ruling.decision.error)
    return f"{ruling.text} ({'; '.join(notes)})" if notes else ruling.text


async def rule(service: Service, prompts: Sequence[Messages], about: RequestOptions) -> Ruling:
    """The ruling on a request that holds these prompts: of the first that does not pass, else of the first.

    Raises what `Guard.ruling_many` and `Delivery.run` raise.
    """
    rulings = await service.delivery.run(partial(service.guard.ruling_many, prompts, **about))
    return next((ruling for ruling in rulings if not ruling.passes), rulings[0])


def reads_tools(engine: Engine) -> bool:
    """Whether the reader's chat template has a place for the definitions of tools."""
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
    try:
        engine.render([Message("user", "?")], [tool])
    except PromptError:
        return False
    return True
