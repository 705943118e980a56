"""The action `escalate`: asks a person. The ticket is stored before the caller gets an answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from guardrail.errors import located, outline
from guardrail.files.records import new_id, utc_now
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import (
    Action,
    ActionConfig,
    ActionContext,
    Answer,
    EscalationSink,
    Otherwise,
    Response,
    Retry,
    known_name,
)
from guardrail.types import STOP, Ticket

HOLDING = "A person will look at this."
DENIED = "I can't help with that."
PERSON = "person"
"""Who answered a prompt, if a person did by hand."""

log = logging.getLogger("guardrail")


class EscalateConfig(ActionConfig):
    """`to` is the escalation sink. With `wait_s` 0 the caller gets the `holding` text at once; otherwise the
    guard waits up to `wait_s` seconds for a person.

    `otherwise` takes over after `wait_s`, or if the sink is down.
    """

    to: str = "review-queue"
    wait_s: Annotated[float, Field(ge=0.0, le=3600.0)] = 0.0
    holding: str = HOLDING
    otherwise: Literal["block", "allow"] = "block"

    @field_validator("to")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return known_name(value, "escalation sink", info)


class Escalate:
    """Stops the forward pass and opens a ticket."""

    name = "escalate"
    strength = 30
    Config: ClassVar[type[BaseModel]] = EscalateConfig

    def compile(self, config: EscalateConfig) -> Literal["stop"]:
        """Stop: the model answers only if a person approves."""
        return STOP

    def respond(self, config: EscalateConfig, context: ActionContext) -> Response:
        """The holding text, what a person decided, or `otherwise`."""
        ticket = None
        try:
            sink = context.sinks[config.to]
            ticket = _known(sink, context) or _opened(sink, context)
            if config.wait_s and ticket.state == "pending":
                ticket = context.wait(sink, ticket, config.wait_s)
            return _resolved(ticket, sink, config, context)
        except CancelledError:
            # the caller has left
            raise
        except Exception as error:
            log.warning("escalation to %s failed: %s: %s", config.to, config.otherwise, located(error))
            return Otherwise(config.otherwise, ticket, f"escalation failed: {outline(error)}")


def _known(sink: EscalationSink, context: ActionContext) -> Ticket | None:
    """The ticket that the client has: theirs, about this policy and this very prompt, and not used."""
    ticket = sink.get(context.ticket_id) if context.ticket_id else None
    if ticket is None or ticket.used:
        return None
    theirs = (ticket.client, ticket.policy, ticket.prompt_sha256)
    return ticket if theirs == (context.client, context.policy, context.prompt_sha256) else None


def _opened(sink: EscalationSink, context: ActionContext) -> Ticket:
    ticket = Ticket(
        id=new_id(),
        policy=context.policy,
        state="pending",
        created=utc_now(),
        decision=context.decision,
        messages=context.messages,
        client=context.client,
        prompt_sha256=context.prompt_sha256,
    )
    sink.open(ticket)
    return ticket


def _resolved(
    ticket: Ticket, sink: EscalationSink, config: EscalateConfig, context: ActionContext
) -> Response:
    if ticket.state == "approved" and context.decision.stage == "prompt":
        if not sink.use(ticket.id):
            return Otherwise("block", ticket, "the approval was used before")
        return Retry(context.messages, waive=frozenset({context.policy}), ticket=ticket)
    if ticket.state == "answered":
        return Answer(ticket.answer or "", ticket, by=PERSON)
    if ticket.state != "pending":
        return Answer(context.message or DENIED, ticket)
    if config.wait_s == 0:
        return Answer(config.holding, ticket)
    return Otherwise(config.otherwise, ticket, f"nobody decided within {config.wait_s:g} s")


@hookimpl
def guardrail_actions() -> Sequence[Action]:
    """`escalate`."""
    return [Escalate()]
