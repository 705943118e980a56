"""The audit records of exchanges: written with the decision, closed with the outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from guardrail.audit.trail import AuditTrail
from guardrail.errors import AuditError, outline
from guardrail.files.records import prompt_sha256, text_sha256, utc_now
from guardrail.pipeline.cancellation import Left
from guardrail.pipeline.exchange import Exchange
from guardrail.plugins.audit import AuditRecord
from guardrail.types import Check, Decision, Outcome, Reply

log = logging.getLogger("guardrail")

BETWEEN = "\n\n"
"""Between several replies to one prompt, which have one record."""
UNREAD = Decision(status="not_evaluated", action="block", would_action="block")
"""What the record holds for a request that ended before anything was decided."""


class Recorder:
    """Writes down what becomes of every exchange. `weights` gives the fingerprint of the model's weights."""

    def __init__(self, audit: AuditTrail, weights: Callable[[], str]) -> None:
        self._audit, self._weights = audit, weights

    def decided(self, exchange: Exchange) -> None:
        """The decision, before anything is handed out. Raises AuditError."""
        self._audit.decided(self._record(exchange, exchange.decisions[-1]))

    def checked(self, exchange: Exchange) -> Check:
        """The end of a request that asked for a decision alone."""
        exchange.closed = True
        self._audit.finished(self._record(exchange, exchange.decisions[-1], "checked"))
        return Check(decision=exchange.decisions[-1], audit_id=exchange.id, timing=exchange.total())

    def replied(self, exchange: Exchange, text: str, pending: bool = False) -> Reply:
        """The end of a request with this text. `pending`: a person will look at it."""
        exchange.closed = True
        exchange.warn_of_ticket()
        decision, final = exchange.decision, exchange.final
        outcome = _outcome(exchange, pending)
        record = self._record(exchange, decision, outcome, decision.error or final.error)
        completion, choices = exchange.completion, exchange.choices(text)
        counts = {
            "steered_passes": completion.steered_passes if completion else 0,
            "new_tokens": sum(choice.new_tokens for choice in choices),
        }
        reply_decision = completion.reply_decision if completion else None
        finish = tuple(choice.finish for choice in choices) if completion else ()
        others = completion.others if completion and len(choices) > 1 else ()
        given = BETWEEN.join([text, *(other.text for other in others)])
        kept = given if exchange.policies.policies.audit.text else None
        texts = replace(record, text_sha256=text_sha256(given), text=kept)
        self._audit.finished(replace(texts, finish=finish, reply_decision=reply_decision, **counts))
        return Reply(
            text=choices[0].text,
            decision=decision,
            history=exchange.history(choices[0].text, choices[0].tool_calls),
            audit_id=exchange.id,
            outcome=outcome,
            ticket_id=exchange.ticket_id,
            answered_by=exchange.answered_by,
            lifted=exchange.lifted,
            earlier=tuple(exchange.decisions[:-1]),
            timing=exchange.total(),
            reply_decision=reply_decision,
            prompt_tokens=exchange.prompt_tokens,
            choices=choices,
            **counts,
        )

    def late(self, exchange: Exchange, decision: Decision) -> None:
        """A decision that came after the caller was answered (worker's thread)."""
        self._audit.finished(self._record(exchange, decision, "late"))

    def ended(self, exchange: Exchange, outcome: Outcome, failure: BaseException | None = None) -> None:
        """The end of a request that got no reply."""
        exchange.closed = True
        error = failure and outline(failure, exchange.policies.policies.audit.text)
        decision = exchange.decisions[-1] if exchange.decisions else replace(UNREAD, error=error)
        self._audit.finished(self._record(exchange, decision, outcome, error))

    @contextmanager
    def closing(self, batch: Sequence[Exchange]) -> Generator[None]:
        """Close the records of a batch if what happens inside fails, or if its caller leaves."""
        if len(batch) == 1:
            batch[0].cancellation.audit_id = batch[0].id
        try:
            yield
        except BaseException as error:
            self._broken_off(batch, error)
            raise

    def _broken_off(self, batch: Sequence[Exchange], error: BaseException) -> None:
        left = not isinstance(error, Exception) or isinstance(error, Left)
        for exchange in batch:
            # first of all, so that the worker does not go on in vain while records are written
            exchange.cancellation.cancel()
        for exchange in batch:
            if not exchange.closed:
                self._failed(exchange, error, left)

    def _failed(self, exchange: Exchange, error: BaseException, left: bool) -> None:
        try:
            self.ended(exchange, "cancelled" if left else "error", None if left else error)
        except AuditError as failure:
            exchange.cancellation.audit_id = None
            # the caller gets its own error; nothing is handed out either way
            log.warning("the end of a request was not recorded: %s", failure)

    def _record(
        self,
        exchange: Exchange,
        decision: Decision,
        outcome: Outcome | None = None,
        error: str | None = None,
    ) -> AuditRecord:
        request, text = exchange.request, exchange.policies.policies.audit.text
        return AuditRecord(
            id=request.id,
            time=request.time,
            kind=request.kind,
            decision=decision,
            prompt_sha256=prompt_sha256(exchange.messages, request.tools),
            prompt_tokens=exchange.prompt_tokens,
            conversation=exchange.facts.conversation,
            tags=tuple(sorted(exchange.facts.tags)),
            fingerprint=self._weights(),
            messages=exchange.messages if text else None,
            timing=exchange.total(),
            outcome=outcome,
            ended=utc_now() if outcome else None,
            ticket_id=exchange.ticket_id,
            reviewer=exchange.reviewer,
            answered_by=exchange.answered_by,
            lifted=exchange.lifted,
            attempts=len(exchange.decisions),
            error=error or decision.error or exchange.error,
        )


def _outcome(exchange: Exchange, pending: bool) -> Outcome:
    if exchange.final.stops:
        return "escalated" if pending or exchange.answered_by else "blocked"
    rephrased = any(earlier.action == "rephrase" for earlier in exchange.decisions[:-1])
    return "rephrased" if rephrased else "answered"
