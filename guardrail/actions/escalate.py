"""The action `escalate`: asks a person, or another model.

A ticket for a person is stored before the caller gets an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from guardrail.actions.other_model import OtherModel, answer
from guardrail.actions.review_queue import ReviewQueue
from guardrail.endpoint.addresses import http_address, variable_that_is_set
from guardrail.errors import EscalationError, located, outline
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
from guardrail.types import STOP, Delivery, Ticket

if TYPE_CHECKING:
    from guardrail.guard import Guard

QUEUE = "review-queue"
EXAMPLES = {
    "webhook": "{webhook: {url: https://..., secret_env: NAME}}",
    "model": "{model: {base_url: https://.../v1, model: NAME}}",
}
HOLDING = "A person will look at this."
DENIED = "I can't help with that."
PERSON = "person"
"""Who answered a prompt, if a person did by hand."""

log = logging.getLogger("guardrail")


class Webhook(ActionConfig):
    """A service that is told of tickets, which are in the review queue.

    `secret_env` names the environment variable with the secret that signs every message; `send_text` sends
    the conversation too; `timeout_s` limits one attempt.
    """

    url: str
    secret_env: str
    send_text: bool = False
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 10.0

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        return http_address(value)

    @field_validator("secret_env")
    @classmethod
    def _set(cls, value: str) -> str:
        return variable_that_is_set(value)


class ToWebhook(ActionConfig):
    """To the review queue, and a service is told."""

    webhook: Webhook


class ToModel(ActionConfig):
    """Another model answers."""

    model: OtherModel


class EscalateConfig(ActionConfig):
    """`to` is the escalation sink, `{webhook: {...}}` or `{model: {...}}`. With `wait_s` 0 the caller gets
    the `holding` text at once; otherwise the guard waits up to `wait_s` seconds for a person.

    `otherwise` takes over after `wait_s`, or if the sink or the other model is down.
    """

    to: str | ToWebhook | ToModel = QUEUE
    wait_s: Annotated[float, Field(ge=0.0, le=3600.0)] = 0.0
    holding: str = HOLDING
    otherwise: Literal["block", "allow"] = "block"

    @field_validator("to")
    @classmethod
    def _known(cls, value: str | ToWebhook | ToModel, info: ValidationInfo) -> str | ToWebhook | ToModel:
        try:
            return known_name(value, "escalation sink", info) if isinstance(value, str) else value
        except ValueError:
            if value not in EXAMPLES:
                raise
            raise ValueError(f"`{value}` needs a configuration: {EXAMPLES[str(value)]}") from None

    @model_validator(mode="after")
    def _people_only(self) -> Self:
        given = {"wait_s", "holding"} & self.model_fields_set
        if isinstance(self.to, ToModel) and given:
            raise ValueError(f"`{min(given)}` does not apply to `model`, which answers at once")
        return self

    @property
    def sink(self) -> str:
        """The name of the sink that has the tickets."""
        return self.to if isinstance(self.to, str) else QUEUE

    @property
    def delivery(self) -> Delivery | None:
        """What is delivered of each ticket."""
        return Delivery(**dict(self.to.webhook)) if isinstance(self.to, ToWebhook) else None


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
            if isinstance(config.to, ToModel):
                return _by(config.to.model, context)
            sink = context.sinks[config.sink]
            ticket = _known(sink, context) or _opened(sink, config, context)
            if config.wait_s and ticket.state == "pending":
                ticket = context.wait(sink, ticket, config.wait_s)
            return _resolved(ticket, sink, config, context)
        except CancelledError:
            # the caller has left
            raise
        except Exception as error:
            log.warning("escalation to %s failed: %s: %s", config.sink, config.otherwise, located(error))
            reason = f"escalation failed: {outline(error)}"
            return Otherwise(config.otherwise, ticket, reason, failed=True)


def _known(sink: EscalationSink, context: ActionContext) -> Ticket | None:
    """The ticket that the client has: theirs, about this policy and this very prompt, and not used."""
    ticket = sink.get(context.ticket_id) if context.ticket_id else None
    if ticket is None or ticket.used:
        return None
    theirs = (ticket.client, ticket.policy, ticket.prompt_sha256)
    return ticket if theirs == (context.client, context.policy, context.prompt_sha256) else None


def _by(model: OtherModel, context: ActionContext) -> Answer:
    if context.rendered:
        raise EscalationError("another model cannot read a prompt that is already rendered")
    # after a reply that was stopped, the other model answers in its place
    asked = context.messages[:-1] if context.decision.stage == "response" else context.messages
    return Answer(answer(model, asked), by=f"model:{model.model}")


def _opened(sink: EscalationSink, config: EscalateConfig, context: ActionContext) -> Ticket:
    ticket = Ticket(
        id=new_id(),
        policy=context.policy,
        state="pending",
        created=utc_now(),
        decision=context.decision,
        messages=context.messages,
        client=context.client,
        prompt_sha256=context.prompt_sha256,
        delivery=config.delivery,
    )
    sink.open(ticket)
    return ticket


def _lifted(ticket: Ticket, sink: EscalationSink, context: ActionContext) -> Response:
    """The policy is lifted for this prompt, once."""
    if context.rendered:
        return Otherwise("block", ticket, "nobody can lift a policy for a prompt that is already rendered")
    if not sink.use(ticket.id):
        return Otherwise("block", ticket, "the approval was used before")
    return Retry(context.messages, waive=frozenset({context.policy}), ticket=ticket)


def _resolved(
    ticket: Ticket, sink: EscalationSink, config: EscalateConfig, context: ActionContext
) -> Response:
    if ticket.state == "approved" and (context.rendered or context.decision.stage == "prompt"):
        return _lifted(ticket, sink, context)
    if ticket.state == "answered":
        return Answer(ticket.answer or "", ticket, by=PERSON)
    if ticket.state != "pending":
        return Answer(context.message or DENIED, ticket)
    if config.wait_s == 0:
        return Answer(config.holding, ticket)
    return Otherwise(config.otherwise, ticket, "nobody has decided yet")


@hookimpl
def guardrail_actions() -> Sequence[Action]:
    """`escalate`."""
    return [Escalate()]


@hookimpl
def guardrail_startup(guard: Guard) -> None:
    """Go on with the deliveries of an earlier process, if a policy has any."""
    queue, rules = guard.sinks.get(QUEUE), (*guard.active.plan.rules, *guard.active.plan.reply_rules)
    uses = any(isinstance(rule.config, EscalateConfig) and rule.config.delivery for rule in rules)
    if uses and isinstance(queue, ReviewQueue):
        queue.resume()
