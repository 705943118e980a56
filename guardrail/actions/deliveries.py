"""The webhooks that tickets in the review queue are sent to: what is due, delivered, tried again, given up.

They are kept with the ticket, so that a ticket is never stored without its delivery. A process takes a
delivery for a while (`LEASE_S`); if it dies, another one goes on. A receiver may get a ticket twice.
"""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

from guardrail.files.records import Json, decision_to_json, messages_to_json
from guardrail.types import Ticket

if TYPE_CHECKING:
    from guardrail.actions.review_queue import ReviewQueue

ATTEMPTS = 15
"""After so many failures, about four hours, a delivery is a dead letter."""
FIRST_S, LONGEST_S = 1.0, 3600.0
"""The pauses between attempts, without their jitter of one half: the first one, and the longest."""
ASKED_S = 86_400.0
"""The longest pause that a receiver may ask for."""
SAME_S = 60.0
"""How long other tickets for a receiver that has just failed wait at most."""
AHEAD_S = 60.0
"""A time that was set this far in the future is of a clock that was set back since, and means now."""
LEASE_S = 30.0
"""How much longer than its time limit a delivery is another process's business."""
TAKE = """UPDATE tickets
SET attempts = attempts + 1, due_since = :now,
  due = :now + :lease + json_extract(delivery, '$.timeout_s')
WHERE id = (
  SELECT id FROM tickets WHERE delivery_state = 'waiting' AND (due <= :now OR due_since > :ahead)
  ORDER BY due, id LIMIT 1
)
RETURNING id"""


def take(queue: ReviewQueue) -> Ticket | None:
    """A ticket whose delivery is due, for this process alone; None if there is none."""
    with queue.writing() as database:
        rows = database.execute(TAKE, _now() | {"lease": LEASE_S}).fetchall()
    return queue.get(rows[0][0]) if rows else None


def next_due(queue: ReviewQueue) -> float | None:
    """The Unix time in seconds at which something is due; None if nothing waits."""
    due = "SELECT min(iif(due_since > ?, 0, due)) FROM tickets WHERE delivery_state = 'waiting'"
    ((found,),) = queue.read(due, _now()["ahead"]) or [(None,)]
    return found


def _now() -> dict[str, float]:
    """The Unix time in seconds, and the latest one at which something can have been put off by now."""
    return {"now": time.time(), "ahead": time.time() + AHEAD_S}


def delivered(queue: ReviewQueue, ticket: Ticket) -> None:
    """The receiver has it."""
    with queue.writing() as database:
        database.execute(
            "UPDATE tickets SET delivery_state = 'delivered', failure = NULL WHERE id = ?", (ticket.id,)
        )


def failed(queue: ReviewQueue, ticket: Ticket, failure: str, retry_after: float | None = None) -> bool:
    """Try again later, also with what else waits for this receiver; whether it is a dead letter now."""
    delivery = ticket.delivery
    assert delivery is not None
    dead, pause = delivery.attempts >= ATTEMPTS, _pause(delivery.attempts, retry_after)
    own = _now() | {"state": "dead" if dead else "waiting", "failure": failure, "id": ticket.id}
    others = pause if retry_after else min(pause, SAME_S)
    with queue.writing() as database:
        database.execute(
            "UPDATE tickets SET delivery_state = :state, due = :now + :pause, due_since = :now, "
            "failure = :failure WHERE id = :id",
            own | {"pause": pause},
        )
        database.execute(
            "UPDATE tickets SET due = max(iif(due_since > :ahead, 0, due), :now + :pause), due_since = :now "
            "WHERE delivery_state = 'waiting' AND json_extract(delivery, '$.url') = :url",
            own | {"pause": others, "url": delivery.url},
        )
    return dead


def _pause(attempts: int, retry_after: float | None) -> float:
    backoff = min(LONGEST_S, FIRST_S * 2.0 ** min(attempts - 1, 20)) * random.uniform(0.5, 1.5)
    return max(backoff, min(retry_after or 0.0, ASKED_S))


def counts(queue: ReviewQueue) -> dict[str, int]:
    """How many deliveries wait, and how many are dead letters."""
    rows = queue.read("SELECT delivery_state, count(*) FROM tickets GROUP BY delivery_state")
    found: dict[str, int] = {row[0]: row[1] for row in rows}
    return {state: found.get(state, 0) for state in ("waiting", "dead")}


def undelivered(queue: ReviewQueue) -> list[Ticket]:
    """The tickets whose receivers do not have them, oldest first: those that wait, and dead letters."""
    return queue.select("WHERE delivery_state IN ('waiting', 'dead') ORDER BY created, id")


def renew(queue: ReviewQueue, ticket_id: str | None = None) -> int:
    """Make dead letters, and what waits, due at once; those of one ticket, or all. How many there are."""
    with queue.writing() as database:
        return database.execute(
            "UPDATE tickets SET delivery_state = 'waiting', due = 0, attempts = 0 "
            "WHERE delivery_state IN ('waiting', 'dead') AND ? IN ('', id)",
            (ticket_id or "",),
        ).rowcount


def content(ticket: Ticket) -> bytes:
    """What the receiver gets: the ticket as it is now, with its conversation only if the policy says so."""
    event = {"type": "guardrail.ticket.opened", "timestamp": ticket.created, "data": _data(ticket)}
    return json.dumps(event, separators=(",", ":")).encode()


def _data(ticket: Ticket) -> Json:
    data: Json = {
        "id": ticket.id,
        "policy": ticket.policy,
        "state": ticket.state,
        "created": ticket.created,
        "client": ticket.client,
        "prompt_sha256": ticket.prompt_sha256,
        "turns": len(ticket.messages),
        "decision": decision_to_json(ticket.decision),
    }
    if ticket.delivery is not None and ticket.delivery.send_text:
        data["messages"] = messages_to_json(ticket.messages)
    return data
