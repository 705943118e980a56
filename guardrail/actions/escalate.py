"""The action `escalate`: asks a person. The ticket is stored before the caller gets an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from guardrail.errors import located
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
POLL_S = 0.2

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
        """The holding text, the decision of a person if it came in time, or `otherwise`."""
        ticket = _ticket(context)
        try:
            sink = context.sinks[config.to]
            sink.open(ticket)
            if config.wait_s == 0:
                return Answer(config.holding, ticket)
            return _resolved(_wait(sink, ticket, config.wait_s), config, context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            log.warning("escalation sink %s is down: %s: %s", config.to, config.otherwise, located(error))
            return Otherwise(config.otherwise)


def _ticket(context: ActionContext) -> Ticket:
    return Ticket(
        id=new_id(),
        policy=context.policy,
        state="pending",
        created=utc_now(),
        decision=context.decision,
        messages=context.messages,
    )


def _wait(sink: EscalationSink, ticket: Ticket, wait_s: float) -> Ticket:
    deadline = time.monotonic() + wait_s
    while ticket.state == "pending" and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(POLL_S, left))
        ticket = sink.get(ticket.id) or ticket
    return ticket


def _resolved(ticket: Ticket, config: EscalateConfig, context: ActionContext) -> Response:
    if ticket.state == "approved":
        return Retry(context.messages, waive=frozenset({context.policy}), ticket=ticket)
    if ticket.state == "denied":
        return Answer(context.message or DENIED, ticket)
    return Otherwise(config.otherwise, ticket)


@hookimpl
def guardrail_actions() -> Sequence[Action]:
    """`escalate`."""
    return [Escalate()]
