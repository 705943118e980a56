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

from guardrail.actions.courier import Courier
from guardrail.errors import EscalationError
from guardrail.files.records import (
    Json,
    decision_from_json,
    decision_to_json,
    keep,
    messages_from_json,
    messages_to_json,
    pick,
    utc_now,
)
from guardrail.files.sqlite import Table, connection, transaction
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import EscalationSink
from guardrail.types import Delivery, Ticket

PATH_VARIABLE = "GUARDRAIL_REVIEW_QUEUE"
BUSY_S = 3.0
"""How long to wait for another process that holds the file."""

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
        "answer": "TEXT",
        "client": "TEXT",
        "prompt_sha256": "TEXT NOT NULL DEFAULT ''",
        "used": "TEXT",
        "delivery": "TEXT",
        "delivery_state": "TEXT",
        "attempts": "INTEGER NOT NULL DEFAULT 0",
        "due": "REAL",
        "due_since": "REAL NOT NULL DEFAULT 0",
        "failure": "TEXT",
        "holder": "TEXT",
        "held_until": "TEXT",
    },
    "STRICT",
    {"tickets_state": "state, created", "tickets_due": "delivery_state, due"},
)
SENT = ("url", "secret_env", "send_text", "timeout_s")
"""What the column `delivery` says of a delivery."""
COLUMNS = ", ".join(TICKETS.columns)
LATER = ("resolved", "resolver", "note", "answer", "client", "prompt_sha256", "used")
TOLD = ("url", "state", "attempts", "failure")
HELD = ("holder", "held_until")
FREE = "(holder IS NULL OR holder = :person OR held_until <= :now)"
"""In SQL: nobody else holds the ticket."""
SHOWN = ("id", "policy", "state", "created", *LATER)


class ReviewQueue:
    """Tickets in one SQLite file. Every method raises EscalationError if the file cannot be used."""

    name = "review-queue"

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._courier = Courier(self)

    @property
    def path(self) -> Path:
        """The file: the given path, else GUARDRAIL_REVIEW_QUEUE, else a file in the user's data folder."""
        return self._path or default_path()

    def open(self, ticket: Ticket) -> None:
        """Store a pending ticket. Its delivery, if it has one, begins afterwards."""
        row: dict[str, str | float | None] = {
            "id": ticket.id,
            "policy": ticket.policy,
            "state": "pending",
            "created": ticket.created,
            "decision": json.dumps(decision_to_json(ticket.decision)),
            "messages": json.dumps(messages_to_json(ticket.messages)),
            "client": ticket.client,
            "prompt_sha256": ticket.prompt_sha256,
        }
        if ticket.delivery is not None:
            sent = json.dumps(pick(ticket.delivery, SENT))
            row |= {"delivery": sent, "delivery_state": "waiting", "due": 0.0}
        places = ", ".join(f":{name}" for name in row)
        with self.writing() as database:
            database.execute(f"INSERT INTO tickets ({', '.join(row)}) VALUES ({places})", row)
        if ticket.delivery is not None:
            self._courier.wake()

    def resume(self) -> None:
        """Deliver what an earlier process left."""
        self._courier.wake()

    def close(self) -> None:
        """Deliver no more; what waits stays."""
        self._courier.close()

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket, or None."""
        return next(iter(self.select("WHERE id = ?", ticket_id)), None)

    def pending(self) -> Sequence[Ticket]:
        """Tickets that nobody has resolved, oldest first."""
        return self.select("WHERE state = 'pending' ORDER BY created, id")

    def resolve(
        self,
        ticket_id: str,
        approve: bool,
        resolver: str,
        note: str | None = None,
        answer: str | None = None,
    ) -> Ticket:
        """Approve, answer or deny. Raises EscalationError unless it is pending, and held by no other."""
        if answer is not None and (approve or not answer.strip()):
            raise EscalationError("a person's answer is a text, and stands in place of the model's")
        # an answer is kept as a denial with a text: that is all that files of older versions allow, and how
        # an older version reads it
        state = "approved" if approve else "denied"
        with self.writing() as database:
            changed = database.execute(
                "UPDATE tickets SET state = :state, resolved = :now, resolver = :person, note = :note, "
                f"answer = :answer WHERE id = :id AND state = 'pending' AND {FREE}",
                {
                    "id": ticket_id,
                    "person": resolver,
                    "now": utc_now(),
                    "state": state,
                    "note": note,
                    "answer": answer,
                },
            ).rowcount
        ticket = self.get(ticket_id)
        if ticket is None:
            raise EscalationError(f"there is no ticket {ticket_id}")
        if not changed:
            raise not_free(ticket)
        return ticket

    def hold(self, ticket_id: str, holder: str, until: str) -> Ticket:
        """Keep a pending ticket for somebody, unless another holds it. Raises EscalationError."""
        with self.writing() as database:
            database.execute(
                "UPDATE tickets SET holder = :person, held_until = :until "
                f"WHERE id = :id AND state = 'pending' AND {FREE}",
                {"id": ticket_id, "person": holder, "now": utc_now(), "until": until},
            )
        if (ticket := self.get(ticket_id)) is None:
            raise EscalationError(f"there is no ticket {ticket_id}")
        return ticket

    def use(self, ticket_id: str) -> bool:
        """Use an approval: True once, in whichever process comes first."""
        with self.writing() as database:
            used = database.execute(
                "UPDATE tickets SET used = ? WHERE id = ? AND state = 'approved' AND used IS NULL",
                (utc_now(), ticket_id),
            )
            return used.rowcount == 1

    def prune(self, until: str) -> int:
        """Remove what was resolved before this time (ISO 8601), for good; how many tickets that were.

        A ticket that a webhook still has to get stays.
        """
        if not self.path.exists():
            return 0
        with self.writing() as database:
            database.execute("PRAGMA secure_delete = ON")
            return database.execute(
                "DELETE FROM tickets WHERE state != 'pending' AND resolved < ? "
                "AND delivery_state IS NOT 'waiting'",
                (until,),
            ).rowcount

    def select(self, condition: str, *values: str) -> list[Ticket]:
        """The tickets that meet a condition of SQL."""
        return [_ticket(row) for row in self.read(f"SELECT {COLUMNS} FROM tickets {condition}", *values)]

    def read(self, query: str, *values: str | float) -> list[sqlite3.Row]:
        """The rows of a query; none if there is no file yet."""
        if not self.path.exists():
            return []
        with self._reported(), connection(self.path, TICKETS, BUSY_S) as database:
            database.row_factory = sqlite3.Row
            return database.execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection, None, None]:
        """A connection that holds the write lock; commits at the end."""
        with self._reported(), connection(self.path, TICKETS, BUSY_S) as database, transaction(database):
            yield database

    @contextmanager
    def _reported(self) -> Generator[None, None, None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise EscalationError(f"review queue {self.path}: {error}") from error


def not_free(ticket: Ticket) -> EscalationError:
    """Why a ticket could not be resolved."""
    if ticket.state == "pending":
        return EscalationError(f"{ticket.holder} decides on ticket {ticket.id} until {ticket.held_until}")
    return EscalationError(f"ticket {ticket.id} was already {ticket.state} by {ticket.resolver}")


def default_path() -> Path:
    """GUARDRAIL_REVIEW_QUEUE, or `guardrail/review-queue.sqlite` in the user's data folder."""
    if chosen := os.environ.get(PATH_VARIABLE):
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "guardrail" / "review-queue.sqlite"


def ticket_to_json(ticket: Ticket) -> Json:
    """A ticket with its conversation."""
    return pick(ticket, SHOWN) | {
        "decision": decision_to_json(ticket.decision),
        "messages": messages_to_json(ticket.messages),
        "delivery": None if ticket.delivery is None else pick(ticket.delivery, TOLD),
    }


def _ticket(row: sqlite3.Row) -> Ticket:
    return Ticket(
        id=row["id"],
        policy=row["policy"],
        state=row["state"] if row["answer"] is None else "answered",
        created=row["created"],
        decision=decision_from_json(json.loads(row["decision"])),
        messages=messages_from_json(json.loads(row["messages"])),
        delivery=None if row["delivery"] is None else _delivery(row),
        **{name: row[name] for name in (*LATER, *HELD)},
    )


def _delivery(row: sqlite3.Row) -> Delivery:
    sent = keep(json.loads(row["delivery"]), SENT)
    state, attempts, failure = row["delivery_state"], row["attempts"], row["failure"]
    return Delivery(**sent, state=state, attempts=attempts, failure=failure)


@hookimpl
def guardrail_escalation_sinks() -> Sequence[EscalationSink]:
    """`review-queue`."""
    return [ReviewQueue()]
