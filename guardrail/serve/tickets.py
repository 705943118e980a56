"""`/v1/guard/tickets`: what became of an escalated prompt, for who sent it; what waits, for who decides.

A client sees its own tickets, without the conversation; keys with the right `review` see all of all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from guardrail.errors import EscalationError
from guardrail.files.records import decision_to_json, messages_to_json, utc_now
from guardrail.pipeline.cancellation import in_thread
from guardrail.serve.errors import ApiError
from guardrail.serve.keys import caller
from guardrail.serve.service import Service
from guardrail.types import Ticket, TicketState

MAX_WAIT_S = 120.0
FIRST_LOOK_S, LOOK_S = 0.1, 1.0
"""The pauses between looks at a ticket that a client waits for: the first one, and the longest."""
LOOKS = 30.0
"""How many looks a second all clients that wait may cost: with more of them, pauses are longer."""


class TicketView(BaseModel):
    """A ticket as the client that owns it sees it.

    `approved`: send the same messages again, once, with the header `x-guardrail-ticket`. `answered`: `answer`
    is what a person wrote.
    """

    object: Literal["guardrail.ticket"] = "guardrail.ticket"
    id: str
    state: TicketState
    policy: str
    created: str
    resolved: str | None
    answer: str | None
    used: str | None
    """When the approval was used."""

    @classmethod
    def of(cls, ticket: Ticket) -> Self:
        """The view of a ticket."""
        own = {name: getattr(ticket, name) for name in cls.model_fields if hasattr(ticket, name)}
        return cls.model_validate(own | cls._more(ticket))

    @classmethod
    def _more(cls, ticket: Ticket) -> dict[str, Any]:
        return {}


class ReviewView(TicketView):
    """A ticket as those see it who decide on it."""

    client: str | None
    resolver: str | None
    note: str | None
    decision: dict[str, Any]
    messages: list[dict[str, Any]]

    @classmethod
    def _more(cls, ticket: Ticket) -> dict[str, Any]:
        return {
            "decision": decision_to_json(ticket.decision),
            "messages": messages_to_json(ticket.messages),
        }


class TicketList(BaseModel):
    """Tickets that wait, oldest first."""

    object: Literal["list"] = "list"
    data: list[ReviewView]
    has_more: bool


class Resolution(BaseModel):
    """What a person decides: the model answers, the person does (`answer`), or nobody."""

    model_config = ConfigDict(extra="forbid", strict=True)

    decision: Literal["approve", "answer", "deny"]
    answer: Annotated[str, Field(min_length=1, max_length=100_000, pattern=r"\S")] | None = None
    note: Annotated[str, Field(max_length=10_000)] | None = None

    def check(self) -> None:
        """Raises ApiError for an answer that is missing, or that nobody would get."""
        if self.decision == "answer" and self.answer is None:
            text = "Missing required parameter: 'answer', the text that the client gets."
            raise ApiError(400, text, code="missing_required_parameter", param="answer")
        if self.decision != "answer" and self.answer is not None:
            text = "Invalid value for 'answer': it goes only with the decision `answer`."
            raise ApiError(400, text, code="invalid_value", param="answer")


class _Waits:
    """Clients that wait for tickets. They hold no threads."""

    def __init__(self, service: Service) -> None:
        self._service, self._count = service, 0

    async def settled(self, ticket: Ticket, wait_s: float) -> Ticket:
        """The ticket once it is decided on, or after so many seconds."""
        self._count += 1
        try:
            async with asyncio.timeout(wait_s):
                return await self._decided(ticket)
        except TimeoutError:
            return ticket
        finally:
            self._count -= 1

    async def _decided(self, ticket: Ticket) -> Ticket:
        pause = FIRST_LOOK_S
        while ticket.state == "pending" and not self._service.draining:
            await asyncio.sleep(pause)
            ticket = await in_thread(self._service.guard.tickets.get, ticket.id) or ticket
            pause = min(1.5 * pause, max(LOOK_S, self._count / LOOKS))
        return ticket


def router(service: Service) -> APIRouter:
    """The routes."""
    routes, tickets, waits = APIRouter(), service.guard.tickets, _Waits(service)

    @routes.get("/v1/guard/tickets")
    async def waiting(
        request: Request,
        state: Literal["pending"] = "pending",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> TicketList:
        async with _noting(service, request, ""):
            service.check_right(request, "review")
        found = await in_thread(tickets.pending)
        return TicketList(data=[ReviewView.of(one) for one in found[:limit]], has_more=len(found) > limit)

    @routes.get("/v1/guard/tickets/{ticket_id}")
    async def show(
        request: Request, ticket_id: str, wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0
    ) -> ReviewView | TicketView:
        async with _noting(service, request, ticket_id):
            ticket = await _visible(service, request, ticket_id)
        return _view(request, await waits.settled(ticket, wait_s))

    @routes.post("/v1/guard/tickets/{ticket_id}/resolve")
    async def resolve(request: Request, ticket_id: str, body: Resolution) -> ReviewView:
        body.check()
        return await _resolved(service, request, ticket_id, body)

    return routes


async def _resolved(service: Service, request: Request, ticket_id: str, body: Resolution) -> ReviewView:
    tickets = service.guard.tickets
    # empty only without keys, and then nobody has the right
    reviewer = _name(request) or ""
    async with _noting(service, request, ticket_id):
        service.check_right(request, "review")
        _check_free(await _visible(service, request, ticket_id), reviewer)
    decide = partial(tickets.resolve, ticket_id, body.decision == "approve", reviewer, body.note, body.answer)
    try:
        return ReviewView.of(await in_thread(decide))
    except EscalationError:
        # somebody may have been faster
        _check_free(await _visible(service, request, ticket_id), reviewer)
        raise


@asynccontextmanager
async def _noting(service: Service, request: Request, ticket_id: str) -> AsyncGenerator[None]:
    """Record it if what is inside is refused. Raises ApiError."""
    try:
        yield
    except ApiError as error:
        await service.refusals.note(ticket_id, _name(request) or "", error.code or "")
        raise


async def _visible(service: Service, request: Request, ticket_id: str) -> Ticket:
    """Raises ApiError for a ticket that does not exist, or is not for the eyes of this key."""
    ticket = await in_thread(service.guard.tickets.get, ticket_id)
    if ticket is None or not (_reviews(request) or ticket.client == _name(request)):
        raise ApiError(404, f"There is no ticket `{ticket_id[:100]}` of yours.", code="ticket_not_found")
    return ticket


def _view(request: Request, ticket: Ticket) -> ReviewView | TicketView:
    return (ReviewView if _reviews(request) else TicketView).of(ticket)


def _reviews(request: Request) -> bool:
    key = caller(request.scope)
    return key is not None and "review" in key.rights


def _name(request: Request) -> str | None:
    """The name of the key, which tickets and records keep."""
    key = caller(request.scope)
    return None if key is None else key.name


def _check_free(ticket: Ticket, reviewer: str) -> None:
    if ticket.state != "pending":
        text = f"The ticket was already {ticket.state} by {ticket.resolver} at {ticket.resolved}."
        raise ApiError(409, text, code="ticket_already_resolved")
    if ticket.held_from(reviewer, utc_now()):
        text = f"{ticket.holder} decides on the ticket until {ticket.held_until}."
        raise ApiError(409, text, code="ticket_held")
