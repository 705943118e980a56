"""`/review`: prompts that wait for a person, who approves, answers or refuses.

Who opens a ticket holds it for a while; others see who does. Every decision, and every attempt that is
refused, is in the audit log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias, cast, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from guardrail.errors import EscalationError
from guardrail.files.records import utc_now
from guardrail.pipeline.cancellation import in_thread
from guardrail.policy.rules import Rule
from guardrail.serve.errors import ApiError
from guardrail.serve.keys import Right
from guardrail.serve.pages.bars import bars
from guardrail.serve.pages.earlier import earlier
from guardrail.serve.pages.site import HEADERS, LOGIN_NEEDED, Page, Site, Visitor
from guardrail.types import Ticket

PATH = "/review"
RIGHTS: tuple[Right, ...] = ("review",)
HOLD_S = 600.0
"""How long a ticket is kept for who has opened it."""
MOST = 200
"""How many tickets the list shows."""
MAX_ANSWER, MAX_NOTE = 100_000, 10_000
MISTAKE = "invalid_value"
"""The code of an error in a form that may be sent again: nobody was refused anything."""

Choice: TypeAlias = Literal["approve", "answer", "deny"]
Act: TypeAlias = Callable[[Visitor, Mapping[str, str], str], Awaitable[Response]]


def router(site: Site) -> APIRouter:
    """The routes."""
    routes, desk = APIRouter(), Desk(site)

    @routes.get(PATH)
    async def waiting(request: Request, done: str = "") -> Response:
        return await desk.list(await desk.visitor(request, ""), done)

    @routes.get(PATH + "/{ticket_id}")
    async def show(request: Request, ticket_id: str) -> Response:
        visitor = await desk.visitor(request, ticket_id)
        ticket = await desk.pending(visitor, ticket_id)
        return await desk.show(visitor, ticket)

    @routes.post(PATH + "/{ticket_id}")
    async def decide(request: Request, ticket_id: str) -> Response:
        return await desk.noting(request, ticket_id, desk.decide)

    @routes.post(PATH + "/{ticket_id}/back")
    async def give_back(request: Request, ticket_id: str) -> Response:
        return await desk.noting(request, ticket_id, desk.give_back)

    return routes


class Desk:
    """What the routes do, for somebody who may review."""

    def __init__(self, site: Site) -> None:
        self._site, self._guard = site, site.service.guard
        self._refusals = site.service.refusals

    async def visitor(self, request: Request, ticket_id: str) -> Visitor:
        """Who may look at tickets; it is recorded if a key may not. Raises ApiError."""
        try:
            return await self._site.visitor(request, RIGHTS)
        except ApiError as error:
            # who has not logged in is only sent to do so
            if error.code != LOGIN_NEEDED:
                await self._note(request, ticket_id, error)
            raise

    async def list(self, visitor: Visitor, done: str) -> Response:
        """All tickets that wait, and what became of the last one."""
        tickets = await in_thread(self._guard.tickets.pending)
        last = await in_thread(self._guard.tickets.get, done) if done else None
        mine = last if last is not None and last.resolver == visitor.name else None
        shown = [(ticket, self._held(visitor, ticket)) for ticket in tickets[:MOST]]
        return self._site.render(
            visitor, "review.html.j2", PATH, tickets=shown, count=len(tickets), done=mine
        )

    async def pending(self, visitor: Visitor, ticket_id: str) -> Ticket:
        """A ticket, which is kept for the visitor now if it is free. Raises ApiError if there is none."""
        ticket = await in_thread(self._guard.tickets.get, ticket_id)
        if ticket is None:
            raise ApiError(404, f"There is no ticket `{ticket_id[:64]}`.", code="ticket_not_found")
        if ticket.state != "pending":
            return ticket
        return await in_thread(self._guard.tickets.hold, ticket_id, visitor.name, HOLD_S)

    async def show(
        self, visitor: Visitor, ticket: Ticket, problem: ApiError | None = None, **kept: str
    ) -> Response:
        """One ticket; with what is wrong, and what was `kept` of a form that could not be taken."""
        before = await in_thread(earlier, self._guard.audit.sinks, ticket)
        values = {
            "ticket": ticket,
            "held": self._held(visitor, ticket),
            "bars": bars(ticket.decision.scores),
            "rule": self._rule(ticket),
            "earlier": before,
            "problem": "" if problem is None else problem.message,
            "note": kept.get("note", ""),
            "answer": kept.get("answer", ""),
        }
        status = 200 if problem is None else problem.status_code
        return self._site.render(visitor, "ticket.html.j2", PATH, status=status, **values)

    async def decide(self, visitor: Visitor, fields: Mapping[str, str], ticket_id: str) -> Response:
        """What the form says. Raises ApiError if there is no such ticket."""
        ticket = await self.pending(visitor, ticket_id)
        note, answer = (fields.get(name, "").strip() for name in ("note", "answer"))
        try:
            self._check_free(visitor, ticket)
            choice = _choice(fields, note, answer)
            await self._resolve(visitor, ticket_id, choice, note, answer)
        except ApiError as error:
            if error.code != MISTAKE:
                await self._refusals.note(ticket_id, visitor.name, error.code or "")
            return await self.show(visitor, ticket, error, note=note, answer=answer)
        return _to(f"{PATH}?done={ticket.id}")

    async def give_back(self, visitor: Visitor, fields: Mapping[str, str], ticket_id: str) -> Response:
        """Hold the ticket no longer."""
        await self.pending(visitor, ticket_id)
        await in_thread(self._guard.tickets.hold, ticket_id, visitor.name, 0.0)
        return _to(PATH)

    async def noting(self, request: Request, ticket_id: str, act: Act) -> Response:
        """Do what a form says; record it if that is refused. Raises ApiError."""
        try:
            visitor = await self._site.visitor(request, RIGHTS)
            fields = await self._site.form(request, visitor)
            return await act(visitor, fields, ticket_id)
        except ApiError as error:
            await self._note(request, ticket_id, error)
            raise

    async def _note(self, request: Request, ticket_id: str, error: ApiError) -> None:
        who = await self._site.anyone(request)
        await self._refusals.note(ticket_id, "" if who is None else who.name, error.code or "")

    async def _resolve(
        self, visitor: Visitor, ticket_id: str, choice: Choice, note: str, answer: str
    ) -> None:
        said = answer if choice == "answer" else None
        decide = partial(
            self._guard.tickets.resolve, ticket_id, choice == "approve", visitor.name, note or None, said
        )
        try:
            await in_thread(decide)
        except EscalationError:
            # somebody may have been faster
            self._check_free(visitor, await self.pending(visitor, ticket_id))
            raise

    def _check_free(self, visitor: Visitor, ticket: Ticket) -> None:
        if ticket.state != "pending":
            text = f"{ticket.resolver} was faster: the ticket is {ticket.state}. Your decision was not taken."
            raise ApiError(409, text, code="ticket_already_resolved")
        if held := self._held(visitor, ticket):
            text = f"{held} decides on this ticket now. Your decision was not taken."
            raise ApiError(409, text, code="ticket_held")

    def _held(self, visitor: Visitor, ticket: Ticket) -> str:
        """Who else decides on a ticket; empty if nobody does."""
        return (ticket.holder or "") if ticket.held_from(visitor.name, utc_now()) else ""

    def _rule(self, ticket: Ticket) -> Rule | None:
        """The policy of a ticket, if it is still in force."""
        plan = self._guard.active.plan
        return next((rule for rule in (*plan.rules, *plan.reply_rules) if rule.id == ticket.policy), None)


def _choice(fields: Mapping[str, str], note: str, answer: str) -> Choice:
    """What was chosen. Raises ApiError for a form that makes no sense."""
    choice = fields.get("decision", "")
    if choice not in get_args(Choice):
        raise _mistake("Choose one: approve, send your answer, or refuse.")
    if choice == "answer" and not answer:
        raise _mistake("Write the answer that the client shall get.")
    if choice != "answer" and answer:
        raise _mistake("You wrote an answer: send it, or empty its field to approve or refuse.")
    if len(answer) > MAX_ANSWER or len(note) > MAX_NOTE:
        raise _mistake(f"An answer has at most {MAX_ANSWER:,} characters, a note {MAX_NOTE:,}.")
    return cast(Choice, choice)


def _mistake(text: str) -> ApiError:
    return ApiError(400, text, code=MISTAKE)


def _to(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303, dict(HEADERS))


PAGE = Page(PATH, "Review", RIGHTS, router)
