"""Sinks that keep their data in memory, and sample decisions, tickets and records."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from guardrail.errors import EscalationError
from guardrail.files.records import utc_now
from guardrail.plugins.audit import AuditRecord
from guardrail.types import Decision, Message, Ticket


def decision(action: str = "block", policy: str = "test") -> Decision:
    """An evaluated decision for one policy that fired."""
    return Decision(status="evaluated", action=action, would_action=action, policy=policy, fired=(policy,))


def ticket(ticket_id: str = "t-1", text: str = "Hello?") -> Ticket:
    """A pending ticket about one user message."""
    return Ticket(
        id=ticket_id,
        policy="test",
        state="pending",
        created=utc_now(),
        decision=decision("escalate"),
        messages=(Message("user", text),),
    )


def audit_record(record_id: str = "r-1", action: str = "block") -> AuditRecord:
    """A record of a chat with a decision but no outcome yet."""
    return AuditRecord(
        id=record_id,
        time=utc_now(),
        kind="chat",
        decision=decision(action),
        prompt_sha256="0" * 64,
        prompt_tokens=3,
    )


class MemoryAudit:
    """An audit sink that keeps records in memory, by id. With `failing`, every write raises OSError."""

    name = "memory"

    def __init__(self, failing: bool = False) -> None:
        self.records: dict[str, AuditRecord] = {}
        self.events: list[tuple[str, str]] = []
        self.failing = failing
        self.closed = False

    def decided(self, record: AuditRecord) -> None:
        """Keep the decision."""
        self._keep("decided", record)

    def finished(self, record: AuditRecord) -> None:
        """Keep the outcome."""
        self._keep("finished", record)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _keep(self, event: str, record: AuditRecord) -> None:
        if self.failing:
            raise OSError("no space left on device")
        self.records[record.id] = record
        self.events.append((event, record.id))


class MemoryQueue:
    """An escalation sink that keeps tickets in memory. With `failing`, every call raises OSError."""

    name = "memory-queue"

    def __init__(self, failing: bool = False) -> None:
        self.tickets: dict[str, Ticket] = {}
        self.failing = failing
        self._lock = threading.Lock()

    def open(self, ticket: Ticket) -> None:
        """Keep the ticket."""
        self._check()
        self.tickets[ticket.id] = ticket

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket, or None."""
        self._check()
        return self.tickets.get(ticket_id)

    def pending(self) -> Sequence[Ticket]:
        """Tickets that nobody has resolved, oldest first."""
        self._check()
        return [ticket for ticket in self.tickets.values() if ticket.state == "pending"]

    def resolve(
        self,
        ticket_id: str,
        approve: bool,
        resolver: str,
        note: str | None = None,
        answer: str | None = None,
    ) -> Ticket:
        """Approve, answer or deny a pending ticket. Raises EscalationError if it is not pending."""
        self._check()
        with self._lock:
            ticket = self.tickets.get(ticket_id)
            if ticket is None or ticket.state != "pending" or ticket.held_from(resolver, utc_now()):
                raise EscalationError(f"ticket {ticket_id}: {ticket.state if ticket else 'unknown'}")
            state = "approved" if approve else "denied" if answer is None else "answered"
            done = replace(
                ticket, state=state, resolved=utc_now(), resolver=resolver, note=note, answer=answer
            )
            self.tickets[ticket_id] = done
        return done

    def hold(self, ticket_id: str, holder: str, until: str) -> Ticket:
        """Keep a ticket for somebody, unless another holds it."""
        self._check()
        with self._lock:
            ticket = self.tickets[ticket_id]
            if ticket.state == "pending" and not ticket.held_from(holder, utc_now()):
                ticket = self.tickets[ticket_id] = replace(ticket, holder=holder, held_until=until)
        return ticket

    def use(self, ticket_id: str) -> bool:
        """Use an approval, once."""
        self._check()
        with self._lock:
            ticket = self.tickets.get(ticket_id)
            if ticket is None or ticket.state != "approved" or ticket.used:
                return False
            self.tickets[ticket_id] = replace(ticket, used=utc_now())
        return True

    def _check(self) -> None:
        if self.failing:
            raise OSError("the queue is down")
