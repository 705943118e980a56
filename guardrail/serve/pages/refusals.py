"""Writes down who was not let decide on a ticket."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from guardrail.pipeline.cancellation import in_thread
from guardrail.pipeline.tickets import Tickets

log = logging.getLogger("guardrail.serve")

UNKNOWN, WINDOW_S = 60, 60.0
"""How many attempts without a login are recorded in so many seconds: they could fill the log."""
LONGEST = 64
"""The most characters of a ticket's id that a record keeps: it comes from whoever asks."""


class Refusals:
    """Refused reviews, in the audit log. Reasons are codes of errors."""

    def __init__(self, tickets: Tickets, clock: Callable[[], float] = time.monotonic) -> None:
        self._tickets, self._clock = tickets, clock
        self._unknown = deque[float](maxlen=UNKNOWN)

    async def note(self, ticket_id: str, reviewer: str, reason: str) -> None:
        """Record an attempt; `reviewer` is empty if nobody is logged in. Raises AuditError."""
        if not reviewer:
            now = self._clock()
            if len(self._unknown) == UNKNOWN and now - self._unknown[0] < WINDOW_S:
                return
            self._unknown.append(now)
        log.warning("a review by %s was refused: %s", reviewer or "somebody unknown", reason)
        await in_thread(self._tickets.refused, ticket_id[:LONGEST], reviewer, reason)
