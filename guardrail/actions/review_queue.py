"""The built-in escalation sink `review-queue`: tickets in SQLite, stored durably before `open` returns.

Safe for several threads and processes. The file is created on first use and only its owner can read it,
because a ticket holds the conversation that a person has to judge.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from guardrail.errors import EscalationError
from guardrail.files.records import (
    Json,
    decision_from_json,
    decision_to_json,
    messages_from_json,
    messages_to_json,
    pick,
    utc_now,
)
from guardrail.files.sqlite import Table, connection, transaction
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import EscalationSink
from guardrail.types import Ticket

PATH_VARIABLE = "GUARDRAIL_REVIEW_QUEUE"

TICKETS = Table(
    "tickets",
    {
        "id": "TEXT PRIMARY KEY",
        "policy": "TEXT NOT NULL",
        "state": "TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied'))",
        "created": "TEXT NOT NULL",
        "decision": "TEXT NOT NULL",
        "messages": "TEXT NOT NULL",
        "resolved": "TEXT",
        "resolver": "TEXT",
        "note": "TEXT",
    },
    "STRICT",
    {"tickets_state": "state, created"},
)
NEW = "id, policy, state, created, decision, messages"
COLUMNS = f"{NEW}, resolved, resolver, note"


class ReviewQueue:
    """Tickets in one SQLite file. Every method raises EscalationError if the file cannot be used."""

    name = "review-queue"

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = None if path is None else Path(path)

    @property
    def path(self) -> Path:
        """The file: the given path, else GUARDRAIL_REVIEW_QUEUE, else a file in the user's data folder."""
        return self._path or default_path()

    def open(self, ticket: Ticket) -> None:
        """Store a pending ticket."""
        row = (
            ticket.id,
            ticket.policy,
            "pending",
            ticket.created,
            json.dumps(decision_to_json(ticket.decision)),
            json.dumps(messages_to_json(ticket.messages)),
        )
        with self._writing() as database:
            database.execute(f"INSERT INTO tickets ({NEW}) VALUES (?, ?, ?, ?, ?, ?)", row)

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket, or None."""
        return next(iter(self._select("WHERE id = ?", ticket_id)), None)

    def pending(self) -> Sequence[Ticket]:
        """Tickets that nobody has resolved, oldest first."""
        return self._select("WHERE state = 'pending' ORDER BY created, id")

    def resolve(self, ticket_id: str, approve: bool, resolver: str, note: str | None = None) -> Ticket:
        """Approve or deny a pending ticket. Raises EscalationError if it is unknown or already resolved."""
        state = "approved" if approve else "denied"
        with self._writing() as database:
            changed = database.execute(
                "UPDATE tickets SET state = ?, resolved = ?, resolver = ?, note = ? "
                "WHERE id = ? AND state = 'pending'",
                (state, utc_now(), resolver, note, ticket_id),
            ).rowcount
        ticket = self.get(ticket_id)
        if ticket is None:
            raise EscalationError(f"there is no ticket {ticket_id}")
        if not changed:
            raise EscalationError(f"ticket {ticket_id} was already {ticket.state} by {ticket.resolver}")
        return ticket

    def _select(self, condition: str, *values: str) -> list[Ticket]:
        if not self.path.exists():
            return []
        with self._reported(), connection(self.path, TICKETS) as database:
            rows = database.execute(f"SELECT {COLUMNS} FROM tickets {condition}", values).fetchall()
        return [_ticket(row) for row in rows]

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection, None, None]:
        with self._reported(), connection(self.path, TICKETS) as database, transaction(database):
            yield database

    @contextmanager
    def _reported(self) -> Generator[None, None, None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise EscalationError(f"review queue {self.path}: {error}") from error


def default_path() -> Path:
    """GUARDRAIL_REVIEW_QUEUE, or `guardrail/review-queue.sqlite` in the user's data folder."""
    if chosen := os.environ.get(PATH_VARIABLE):
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "guardrail" / "review-queue.sqlite"


def ticket_to_json(ticket: Ticket) -> Json:
    """A ticket with its conversation."""
    return pick(ticket, ("id", "policy", "state", "created", "resolved", "resolver", "note")) | {
        "decision": decision_to_json(ticket.decision),
        "messages": messages_to_json(ticket.messages),
    }


def _ticket(row: tuple[str, ...]) -> Ticket:
    ticket_id, policy, state, created, decision, messages, resolved, resolver, note = row
    return Ticket(
        id=ticket_id,
        policy=policy,
        state=state,  # type: ignore[arg-type]
        created=created,
        decision=decision_from_json(json.loads(decision)),
        messages=messages_from_json(json.loads(messages)),
        resolved=resolved,
        resolver=resolver,
        note=note,
    )


@hookimpl
def guardrail_escalation_sinks() -> Sequence[EscalationSink]:
    """`review-queue`."""
    return [ReviewQueue()]
