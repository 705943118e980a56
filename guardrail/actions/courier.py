"""Delivers tickets of the review queue to webhooks, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from guardrail.actions import deliveries
from guardrail.errors import ConfigError, EscalationError, located
from guardrail.files.forks import freed, renewed
from guardrail.types import Ticket

if TYPE_CHECKING:
    from guardrail.actions.review_queue import ReviewQueue

log = logging.getLogger("guardrail")

LOOK_S = 5.0
"""The longest pause between looks at the queue, which other processes use as well."""
CLOSE_S = 1.0
"""How long closing waits for a delivery that runs."""


class Courier:
    """Starts with the first `wake`, and stops with `close`; what is not delivered yet stays in the queue."""

    def __init__(self, queue: ReviewQueue) -> None:
        self._queue = queue
        self._lock = freed(threading.Lock())
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        renewed(self)

    def wake(self) -> None:
        """Look at the queue now."""
        with self._lock:
            if self._thread is None:
                self._stopped = threading.Event()
                thread = threading.Thread(
                    target=self._run, args=(self._stopped,), name="guardrail-courier", daemon=True
                )
                thread.start()
                self._thread = thread
        self._woken.set()

    def close(self) -> None:
        """Deliver no more."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopped.set()
        self._woken.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)

    def forked(self) -> None:
        """The thread is the parent's."""
        self._thread, self._woken = None, threading.Event()

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            self._woken.clear()
            try:
                due = self._round(stopped)
            except Exception as error:
                # a queue that cannot be used now may be usable later
                log.warning("webhooks are not delivered: %s", located(error))
                due = None
            self._woken.wait(LOOK_S if due is None else max(0.0, min(LOOK_S, due - time.time())))

    def _round(self, stopped: threading.Event) -> float | None:
        """Send what is due; the Unix time in seconds of what is due next, None if nothing waits."""
        while not stopped.is_set():
            due = deliveries.next_due(self._queue)
            if due is None or due > time.time():
                return due
            deliver_next(self._queue)
        return None


def deliver_next(queue: ReviewQueue) -> Ticket | None:
    """Send the ticket that is due first, and keep what became of it. None: nothing is due.

    Raises EscalationError if the queue cannot be used.
    """
    ticket = deliveries.take(queue)
    if ticket is None:
        return None
    try:
        failure, retry_after = _sent(ticket)
    except Exception as error:
        failure, retry_after = f"failed: {located(error)}", None
    if failure is None:
        deliveries.delivered(queue, ticket)
    elif deliveries.failed(queue, ticket, failure, retry_after):
        log.error(
            "ticket %s was not delivered: the webhook %s; it is kept, see `guardrail audit deliveries`",
            *(ticket.id, failure),
        )
    return ticket


def retried(queue: ReviewQueue, ticket_id: str | None = None) -> None:
    """Send dead letters, and what waits, once, now: those of one ticket, or all."""
    for _ in range(deliveries.renew(queue, ticket_id)):
        deliver_next(queue)


def _sent(ticket: Ticket) -> tuple[str | None, float | None]:
    """What went wrong, and the wait that the receiver asked for; (None, None) if it has the ticket."""
    from guardrail.endpoint.webhooks import Undelivered, secret_from, send

    delivery = ticket.delivery
    if delivery is None:
        raise EscalationError(f"ticket {ticket.id} has no delivery")
    try:
        secret = secret_from(delivery.secret_env)
        send(delivery.url, ticket.id, deliveries.content(ticket), secret, delivery.timeout_s)
    except Undelivered as error:
        return str(error), error.retry_after
    except ConfigError as error:
        return str(error), None
    return None, None
