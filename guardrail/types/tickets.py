"""Prompts that wait for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from guardrail.types import Decision, Message

TicketState: TypeAlias = Literal["pending", "approved", "denied", "answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook that is told of a ticket. `dead`: nobody tries any more; `failure` is the last one.

    `secret_env` names the environment variable with the secret that signs it. `send_text`: with the
    conversation. `timeout_s` limits each of the `attempts`.
    """

    url: str
    secret_env: str
    send_text: bool = False
    timeout_s: float = 10.0
    state: Literal["waiting", "delivered", "dead"] = "waiting"
    attempts: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A prompt that waits for a person.

    `state` is pending, approved (the model answers), denied, or answered: `answer` is what the person wrote.
    `client` is who asked. `holder` is who decides on it, until `held_until` (UTC, ISO 8601).
    An approval holds for the prompt with this `prompt_sha256`, until it is `used`.
    """

    id: str
    policy: str
    state: TicketState
    created: str
    decision: Decision
    messages: tuple[Message, ...]
    resolved: str | None = None
    resolver: str | None = None
    note: str | None = None
    answer: str | None = None
    client: str | None = None
    prompt_sha256: str = ""
    used: str | None = None
    delivery: Delivery | None = None
    holder: str | None = None
    held_until: str | None = None

    def held_from(self, person: str, now: str) -> bool:
        """Whether somebody else holds it at this time (UTC, ISO 8601)."""
        return self.holder not in (None, person) and (self.held_until or "") > now
