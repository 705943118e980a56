"""Writes down who was not let see or decide on tickets, whichever way they came."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from starlette.types import Scope

from guardrail.errors import AuditError
from guardrail.pipeline.cancellation import in_thread
from guardrail.pipeline.tickets import Tickets
from guardrail.serve.errors import ApiError

log = logging.getLogger("guardrail.serve")

ONE_BY_ONE, WINDOW_S = 60, 60.0
"""How many attempts of one key are recorded one by one in so many seconds; others are counted."""
LONGEST = 64
"""The most characters of a ticket's id that a record keeps: it comes from whoever asks."""
TICKETS = "/v1/guard/tickets"


class Refusals:
    """Refused looks and decisions, in the audit log. Reasons are codes of errors.

    Nobody can fill the log: beyond the `most` attempts of a key in a window (and of all who have none), the
    rest of it is one record for each reason, which says how many there were.
    """

    def __init__(self, tickets: Tickets, most: int = ONE_BY_ONE, window_s: float = WINDOW_S) -> None:
        self._tickets, self._most, self._window_s = tickets, most, window_s
        self._alone = Counter[str]()
        self._counted = Counter[tuple[str, str]]()
        self._window: asyncio.Task[None] | None = None

    async def note(self, ticket_id: str, reviewer: str, reason: str) -> None:
        """Record an attempt; `reviewer` is empty if nobody knows who it was. Raises AuditError."""
        self._begin()
        if self._alone[reviewer] >= self._most:
            self._counted[reviewer, reason] += 1
            return
        self._alone[reviewer] += 1
        log.warning("a review by %s was refused: %s", _named(reviewer), reason)
        await in_thread(self._tickets.refused, ticket_id[:LONGEST], reviewer, reason)

    async def unknown(self, scope: Scope, error: ApiError) -> None:
        """Record a request to the API about tickets that named no key in force. It is refused in any case."""
        path: str = scope["path"]
        if error.status_code == 401 and (path == TICKETS or path.startswith(f"{TICKETS}/")):
            ticket_id = path.removeprefix(TICKETS).strip("/").partition("/")[0]
            try:
                await self.note(ticket_id, "", error.code or "")
            except AuditError as failure:
                log.error("a refused review is not on record: %s", failure)

    async def end(self) -> None:
        """Record what has only been counted so far."""
        if self._window is not None:
            self._window.cancel()
        await self._told()

    def _begin(self) -> None:
        if self._window is None or self._window.done():
            self._alone, self._window = Counter(), asyncio.create_task(self._close())

    async def _close(self) -> None:
        await asyncio.sleep(self._window_s)
        await self._told()

    async def _told(self) -> None:
        counted, self._counted = self._counted, Counter[tuple[str, str]]()
        for (reviewer, reason), times in counted.items():
            log.warning("%d more reviews by %s were refused: %s", times, _named(reviewer), reason)
            try:
                await in_thread(self._tickets.refused, "", reviewer, reason, times)
            except AuditError as failure:
                log.error("refused reviews are not on record: %s", failure)


def _named(reviewer: str) -> str:
    return reviewer or "somebody unknown"
