"""Rulings: whether a prompt may go to a model that this guard reads for, and cannot steer or rephrase for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Unpack

from guardrail.files.decision_rows import decision_row
from guardrail.files.records import Json
from guardrail.pipeline.cancellation import in_thread
from guardrail.pipeline.chat import BATCH, admissible
from guardrail.pipeline.driver import Driver
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.options import RequestOptions
from guardrail.plugins.protocols import Answer
from guardrail.policy.plan import Plan
from guardrail.types import ALLOW, Decision, Messages, Outcome, Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """Whether a prompt may go to another model. `text` is what to say instead; None if it may.

    `decision` is the last one. Those in `earlier` were lifted, by the policy's `otherwise` or by a person.
    """

    decision: Decision
    audit_id: str
    text: str | None = None
    ticket_id: str | None = None
    earlier: tuple[Decision, ...] = ()
    lifted: tuple[str, ...] = ()
    """The policies that a person has lifted."""
    timing: Timing = field(default_factory=Timing)

    @property
    def passes(self) -> bool:
        """Whether the prompt may go on."""
        return self.text is None

    def as_json(self) -> Json:
        """The decision as `guardrail check --json` prints it, with `passes`, `text` and `ticket_id`."""
        more: Json = {"passes": self.passes, "text": self.text, "ticket_id": self.ticket_id}
        return {**decision_row(self.decision, self.audit_id, self.timing), **more}


class _Guard(Protocol):
    def ruling(self, messages: Messages | str, **options: Unpack[RequestOptions]) -> Ruling: ...
    def ruling_many(
        self, conversations: Sequence[Messages | str], **options: Unpack[RequestOptions]
    ) -> list[Ruling]: ...


class Rulings:
    """`ruling` and `aruling`, for a guard that has `ruling_many`."""

    def ruling(self: _Guard, messages: Messages | str, **options: Unpack[RequestOptions]) -> Ruling:
        """Decide whether a prompt may go to another model, and do what the policies say if it may not.

        `block` refuses and `escalate` opens a ticket. What only this model could do, `steer` and `rephrase`,
        gives way to the policy's `otherwise` (default block). Messages, options and errors as in `check`.
        """
        return self.ruling_many([messages], **options)[0]

    async def aruling(self: _Guard, messages: Messages | str, **options: Unpack[RequestOptions]) -> Ruling:
        """`ruling`, without blocking the event loop."""
        return await in_thread(self.ruling, messages, **options)


def elsewhere(decision: Decision, plan: Plan) -> str:
    """The action that a decision comes to for a model that cannot be steered or rephrased for."""
    if decision.action == ALLOW:
        return ALLOW
    if decision.action not in ("steer", "rephrase"):
        return decision.action
    policies = {steering.policy for steering in decision.steering} | {decision.policy}
    found = [rule.otherwise if (rule := plan.rule(policy)) else "block" for policy in policies]
    return max(found, key=lambda action: plan.strengths[action])


def rulings(driver: Driver, batch: Sequence[Exchange]) -> list[Ruling]:
    """Whether each may go on. As `chat.chat`, but no model replies."""
    answers: dict[str, Answer | None] = {}
    with driver.recorder.closing(batch):
        admissible(driver, batch, room=1)
        while todo := [exchange for exchange in batch if exchange.id not in answers][:BATCH]:
            admission = driver.admit(todo, room=1)
            driver.decide(admission, driver.engine.check)
            answers |= _settled(driver, admission.batch)
        return [_ruling(driver, exchange, answers[exchange.id]) for exchange in batch]


def _settled(driver: Driver, todo: Sequence[Exchange]) -> dict[str, Answer | None]:
    """None for an exchange that may go on; one that has to be decided again is left out."""
    settled: dict[str, Answer | None] = {}
    for exchange in todo:
        passes = exchange.decisions[-1].action == ALLOW
        answer = None if passes else driver.responder.respond(exchange, driver.completing(exchange))
        if passes or answer is not None:
            settled[exchange.id] = answer
    return settled


def _outcome(answer: Answer | None) -> Outcome:
    if answer is None:
        return "checked"
    return "escalated" if answer.ticket is not None and answer.ticket.state == "pending" else "blocked"


def _ruling(driver: Driver, exchange: Exchange, answer: Answer | None) -> Ruling:
    exchange.cancellation.check()
    exchange.take(answer.ticket if answer else None)
    exchange.warn_of_ticket()
    driver.recorder.ended(exchange, _outcome(answer))
    return Ruling(
        decision=exchange.decision,
        audit_id=exchange.id,
        text=None if answer is None else answer.text,
        ticket_id=exchange.ticket_id,
        earlier=tuple(exchange.decisions[:-1]),
        lifted=exchange.lifted,
        timing=exchange.total(),
    )
