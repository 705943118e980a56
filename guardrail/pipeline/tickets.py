"""The tickets of a guard, in whichever sinks they are: found, waited for, resolved.

Each call of a sink has a time limit. Whatever a sink raises is an EscalationError, which quotes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TypeVar

from guardrail.audit.trail import AuditTrail
from guardrail.errors import EscalationError, outline
from guardrail.files.forks import freed
from guardrail.files.records import utc_in, utc_now
from guardrail.pipeline.cancellation import Cancellation
from guardrail.pipeline.plugin_calls import PluginCalls
from guardrail.plugins.audit import Review
from guardrail.plugins.protocols import ClosingSink, EscalationSink, HoldingSink
from guardrail.plugins.results import checked_ticket
from guardrail.types import Ticket

T = TypeVar("T")

LIMIT_S = 10.0
"""How long one call of a sink may take."""
MAX_WAITING = 256
"""How many requests of one guard may wait for a person at once; each holds its caller's thread."""
FIRST_LOOK_S, LOOK_S = 0.05, 1.0
"""The pauses between looks at a ticket that somebody waits for: the first one, and the longest."""
LOOKS = 30.0
"""How many looks a second all who wait may cost: with more of them, pauses are longer."""


@dataclass
class BoundedSink:
    """A sink whose calls end: in time, or with an EscalationError."""

    name: str
    sink: EscalationSink
    calls: PluginCalls

    def open(self, ticket: Ticket) -> None:
        """Store the ticket."""
        self._call(partial(self.sink.open, ticket))

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket, or None."""
        return self._call(lambda: checked_ticket(self.sink.get(ticket_id)))

    def pending(self) -> Sequence[Ticket]:
        """Tickets that nobody has resolved, oldest first."""
        return self._call(self.sink.pending)

    def resolve(
        self,
        ticket_id: str,
        approve: bool,
        resolver: str,
        note: str | None = None,
        answer: str | None = None,
    ) -> Ticket:
        """Approve, answer or deny a pending ticket."""
        return self._call(partial(self.sink.resolve, ticket_id, approve, resolver, note, answer))

    def hold(self, ticket_id: str, holder: str, until: str) -> Ticket:
        """Keep the ticket for somebody, if the sink can, and nobody else holds it."""
        if isinstance(self.sink, HoldingSink):
            return self._call(partial(self.sink.hold, ticket_id, holder, until))
        if (ticket := self.get(ticket_id)) is None:
            raise EscalationError(f"there is no ticket {ticket_id}")
        return ticket

    def use(self, ticket_id: str) -> bool:
        """Use an approval, once."""
        return self._call(partial(self.sink.use, ticket_id))

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return self.calls.call(f"sink-{self.name}", call, LIMIT_S)
        except KeyboardInterrupt:
            raise
        except TimeoutError:
            raise EscalationError(f"escalation sink `{self.name}` did not answer in time") from None
        except BaseException as error:
            raise EscalationError(f"escalation sink `{self.name}`: {outline(error)}") from error


class Tickets:
    """What `guard.tickets` is. Any thread may use it."""

    def __init__(self, sinks: Mapping[str, EscalationSink], calls: PluginCalls, audit: AuditTrail) -> None:
        self.sinks: Mapping[str, BoundedSink] = {
            name: BoundedSink(name, sink, calls) for name, sink in sinks.items()
        }
        self._closing = [sink for sink in sinks.values() if isinstance(sink, ClosingSink)]
        self._audit = audit
        self._woken: dict[threading.Event, str] = {}
        self._lock = freed(threading.Lock())
        self._ended = False

    @property
    def waiting(self) -> int:
        """How many requests wait for a person."""
        return len(self._woken)

    def get(self, ticket_id: str) -> Ticket | None:
        """A ticket; None if no sink knows it. Raises EscalationError if a sink fails."""
        return next((ticket for _, ticket in self._found(ticket_id)), None)

    def pending(self) -> list[Ticket]:
        """Tickets that nobody has resolved, oldest first. Raises EscalationError if a sink fails."""
        found = [ticket for sink in self.sinks.values() for ticket in sink.pending()]
        return sorted(found, key=lambda ticket: (ticket.created, ticket.id))

    def resolve(
        self,
        ticket_id: str,
        approve: bool,
        resolver: str,
        note: str | None = None,
        answer: str | None = None,
    ) -> Ticket:
        """Decide on a ticket, once, and write down who did: `approve`, deny, or an `answer` by hand.

        Raises EscalationError if there is no such ticket, or somebody else was faster, and AuditError.
        """
        for sink, _ in self._found(ticket_id):
            done = sink.resolve(ticket_id, approve, resolver, note, answer)
            self._wake(ticket_id)
            review = Review(time=done.resolved or "", ticket_id=done.id, state=done.state, reviewer=resolver)
            self._audit.reviewed(review)
            return done
        raise EscalationError(f"there is no ticket {ticket_id}")

    def hold(self, ticket_id: str, holder: str, seconds: float) -> Ticket:
        """Keep a pending ticket for somebody who decides on it; 0 seconds give it back.

        Returns the ticket, which says who holds it; nobody, if its sink cannot. Raises EscalationError.
        """
        for sink, _ in self._found(ticket_id):
            return sink.hold(ticket_id, holder, utc_in(seconds))
        raise EscalationError(f"there is no ticket {ticket_id}")

    def refused(self, ticket_id: str, reviewer: str, reason: str, times: int = 1) -> None:
        """Write down that somebody was not let decide on a ticket. Raises AuditError."""
        review = Review(
            time=utc_now(),
            ticket_id=ticket_id,
            state="refused",
            reviewer=reviewer,
            reason=reason,
            times=times,
        )
        self._audit.reviewed(review)

    def _found(self, ticket_id: str) -> Generator[tuple[BoundedSink, Ticket]]:
        for sink in self.sinks.values():
            if (ticket := sink.get(ticket_id)) is not None:
                yield sink, ticket

    def wait(
        self, cancellation: Cancellation, sink: EscalationSink, ticket: Ticket, seconds: float
    ) -> Ticket:
        """The ticket once it is resolved, or as it is after so many seconds or when nobody may wait any more.

        Raises Left if the caller leaves, EscalationError if the sink fails or too many wait already.
        """
        end, pause = monotonic() + seconds, FIRST_LOOK_S
        with self._place(ticket.id) as woken:
            cancellation.tell(woken.set)
            cancellation.ticket_id = ticket.id
            while ticket.state == "pending" and (left := end - monotonic()) > 0 and not self._ended:
                # people also decide in other processes, of which nobody tells this one
                woken.wait(min(pause, left))
                woken.clear()
                cancellation.check()
                ticket = sink.get(ticket.id) or ticket
                pause = min(1.5 * pause, max(LOOK_S, self.waiting / LOOKS))
        cancellation.ticket_id = None
        return ticket

    @contextmanager
    def _place(self, ticket_id: str) -> Generator[threading.Event]:
        woken = threading.Event()
        with self._lock:
            if self.waiting >= MAX_WAITING:
                raise EscalationError(f"{self.waiting} requests wait for a person already")
            self._woken[woken] = ticket_id
        try:
            yield woken
        finally:
            with self._lock:
                del self._woken[woken]

    def _wake(self, ticket_id: str | None = None) -> None:
        """Let those look who wait for this ticket, or for any."""
        with self._lock:
            found = [woken for woken, waited in self._woken.items() if ticket_id in (None, waited)]
        for woken in found:
            woken.set()

    def end_waits(self) -> None:
        """Let no request wait for a person any more, because the program will stop; tickets stay."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Wait for nobody any more, and close the sinks."""
        self.end_waits()
        for sink in self._closing:
            sink.close()
