"""One round of a batch: prompts in, decisions out and audited, replies where the model answers.

A request may take several rounds: rephrasing and approval change it, and it is evaluated again.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, TypeAlias

from guardrail.audit.trail import AuditTrail
from guardrail.engines import Completion, Engine, Event, Refused, Scored
from guardrail.errors import EvaluationError, QueueFull, RequestError
from guardrail.files.records import text_sha256
from guardrail.pipeline.admission import Admission, admit
from guardrail.pipeline.conversations import Conversations
from guardrail.pipeline.evaluator import Evaluation
from guardrail.pipeline.request import Request, history
from guardrail.pipeline.respond import Responder
from guardrail.pipeline.worker import Job, Worker
from guardrail.plugins.protocols import Answer
from guardrail.policy.loading import ActivePolicies
from guardrail.types import (
    AuditRecord,
    Check,
    Decision,
    Facts,
    Message,
    Outcome,
    Reply,
    Sampling,
    Timing,
)

ReplyJob: TypeAlias = Job[Event, Sequence[Completion]]


@dataclass(kw_only=True)
class Round:
    """The requests of one round with what was decided; `completions` holds the rows that were generated."""

    rounds: Rounds
    loaded: ActivePolicies
    requests: Sequence[Request]
    decisions: Sequence[Decision]
    timing: Timing
    completions: dict[int, Completion] = field(default_factory=dict[int, Completion])

    def settle(self, i: int, responder: Responder) -> Reply | None:
        """The reply, audited; None where the request has changed and goes into another round."""
        request, decision, completion = self.requests[i], self.decisions[i], self.completions.get(i)
        if not decision.stops:
            if completion is None:
                raise EvaluationError("the prompt was allowed and nothing was generated")
            return self.rounds.settle(self.loaded, request, completion, self.timing, responder)
        answer = responder.respond(request, decision)
        if answer is None:
            return None
        return self.rounds.answer(self.loaded, request, answer, self.timing)


class Rounds:
    """Runs rounds on the model's worker, and writes every decision down before anything is handed out."""

    def __init__(self, engine: Engine, worker: Worker, audit: AuditTrail) -> None:
        self.engine, self.worker, self.audit = engine, worker, audit
        self.conversations = Conversations(engine)

    # --- rounds ---------------------------------------------------------------------------------------

    def reply(self, loaded: ActivePolicies, requests: Sequence[Request], sampling: Sampling) -> Round:
        """Decide on a batch and generate the rows that go on."""
        admission = self.admit(loaded, requests, sampling.max_new_tokens)
        submitted = self.submit(loaded, admission, sampling) if admission.rows else None
        decisions, timing = self.decided(loaded, admission, submitted)
        answered = Round(rounds=self, loaded=loaded, requests=requests, decisions=decisions, timing=timing)
        if submitted and not all(decisions[i].stops for i in admission.rows):
            with self.closing(loaded, requests):
                answered.completions = dict(zip(admission.rows, submitted[0].result(), strict=True))
        return answered

    def check(self, loaded: ActivePolicies, requests: Sequence[Request]) -> list[Check]:
        """Decide on a batch and generate nothing."""
        admission = self.admit(loaded, requests, 1)
        submitted = self._submit_check(loaded, admission) if admission.rows else None
        decisions, timing = self.decided(loaded, admission, submitted)
        for item, decision in zip(requests, decisions, strict=True):
            self.audit.finished(self._record(loaded, item, decision, timing, outcome="checked"))
        return [
            Check(decision=decision, audit_id=item.id, timing=self._total(item, timing))
            for item, decision in zip(requests, decisions, strict=True)
        ]

    def admit(self, loaded: ActivePolicies, requests: Sequence[Request], room: int) -> Admission:
        """Render a batch. Raises PromptError, with an audit record of what could not be evaluated."""
        with self.closing(loaded, requests):
            return admit(self.engine, loaded, requests, room)

    def submit(
        self, loaded: ActivePolicies, admission: Admission, sampling: Sampling, stream: bool = False
    ) -> tuple[ReplyJob, Evaluation]:
        """Queue a guarded reply. Raises QueueFull and GuardClosed."""
        evaluation, prompts = Evaluation(loaded, admission.admitted, self.conversations), admission.prompts

        def run(job: ReplyJob) -> Sequence[Completion]:
            evaluation.start(job)
            return self.engine.reply(prompts, loaded.plan, evaluation, sampling, job.emit, stream)

        return self.worker.submit(run), evaluation

    def _submit_check(
        self, loaded: ActivePolicies, admission: Admission
    ) -> tuple[Job[Event, None], Evaluation]:
        evaluation, prompts = Evaluation(loaded, admission.admitted, self.conversations), admission.prompts

        def run(job: Job[Event, None]) -> None:
            evaluation.start(job)
            self.engine.check(prompts, loaded.plan, evaluation, job.emit)

        return self.worker.submit(run), evaluation

    def unguarded(self, loaded: ActivePolicies, messages: Sequence[Message]) -> str:
        """Let the model answer without a policy: for rewriting, never for replying."""
        free = replace(loaded, plan=replace(loaded.plan, rules=(), reply_rules=(), reply_probes=()))
        item = Request(kind="chat", original=(), messages=tuple(messages), facts=Facts())
        job, _ = self.submit(free, Admission([item], [self.engine.render(messages)]), Sampling())
        return job.result()[0].text

    # --- decisions ------------------------------------------------------------------------------------

    def decided(
        self,
        loaded: ActivePolicies,
        admission: Admission,
        submitted: tuple[Job[Event, Any], Evaluation] | None,
    ) -> tuple[list[Decision], Timing]:
        """The verdict on every request of a batch, written down before anything is handed out."""
        found, timing = self.decisions(*submitted) if submitted else ([], Timing())
        decisions = admission.merged(found)
        try:
            self.record(loaded, admission.requests, decisions, timing)
        except BaseException:
            if submitted:
                submitted[0].cancel()
            raise
        return decisions, timing

    def decisions(self, job: Job[Event, Any], evaluation: Evaluation) -> tuple[list[Decision], Timing]:
        """Wait for the verdict, no longer than policies allow from the worker's start."""
        if not job.wait_until_started(self.worker.patience_s):
            job.cancel()
            raise QueueFull(f"the model did not get to this request within {self.worker.patience_s:.0f} s")
        queued = (job.started - job.submitted) * 1e3
        try:
            event = self._first_event(job, evaluation)
        except RequestError:
            raise
        except Refused as refused:
            raise refused.error from None
        except Exception as error:
            return self._failed(evaluation, error), Timing(queue=queued)
        if event is None:
            return self._timed_out(job, evaluation), Timing(queue=queued)
        if len(event.decisions) != len(evaluation.requests):
            raise EvaluationError("the engine did not decide once for every prompt")
        return list(event.decisions), replace(event.timing, queue=queued)

    def _first_event(self, job: Job[Event, Any], evaluation: Evaluation) -> Scored | None:
        limit = evaluation.timeout_s
        left = None if limit == float("inf") else max(0.0, job.started + limit - perf_counter())
        try:
            event = job.next_event(left)
        except TimeoutError:
            late = [evaluation.failed(i, "", timeout=True) for i in range(len(evaluation.requests))]
            if all(decision.stops for decision in late):
                return None
            event = job.next_event()  # failing open: the worker finds out itself that it is late
        if not isinstance(event, Scored):
            raise EvaluationError("generation ended without a decision")
        return event

    def _failed(self, evaluation: Evaluation, error: Exception) -> list[Decision]:
        """The engine broke before it decided. Where policies fail open there is no reply either: raise."""
        rows = range(len(evaluation.requests))
        decisions = [evaluation.failed(row, f"{type(error).__name__}: {error}") for row in rows]
        if not all(decision.stops for decision in decisions):
            raise error
        return decisions

    def _timed_out(self, job: Job[Event, Any], evaluation: Evaluation) -> list[Decision]:
        evaluation.timed_out = True
        evaluation.on_late = lambda row, decision: self._late(evaluation, row, decision)
        job.cancel()
        message = evaluation.timeout_message()
        return [evaluation.failed(row, message, timeout=True) for row in range(len(evaluation.requests))]

    def _late(self, evaluation: Evaluation, row: int, decision: Decision) -> None:
        item = evaluation.requests[row]
        self.audit.finished(self._record(evaluation.loaded, item, decision, Timing(), outcome="late"))

    # --- records --------------------------------------------------------------------------------------

    def record(
        self,
        loaded: ActivePolicies,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
        timing: Timing,
    ) -> None:
        """Write decisions down, before anything is handed out."""
        for item, decision in zip(requests, decisions, strict=True):
            item.decisions.append(replace(decision, warnings=(*decision.warnings, *item.warnings)))
            self.audit.decided(self._record(loaded, item, item.decisions[-1], timing))

    def settle(
        self,
        loaded: ActivePolicies,
        item: Request,
        completion: Completion,
        timing: Timing,
        responder: Responder,
    ) -> Reply:
        """The model's reply, or where response policies stopped it the action's answer in its place."""
        response = completion.reply_decision
        if response is None or not response.stops:
            return self.finish(loaded, item, completion.text, timing, completion)
        answer = responder.stopped(item, response, completion.text)
        return self.answer(loaded, item, answer, timing, completion)

    def answer(
        self,
        loaded: ActivePolicies,
        item: Request,
        answer: Answer,
        timing: Timing,
        completion: Completion | None = None,
        sent: str = "",
    ) -> Reply:
        """The reply that an action gave in the model's place, or after what of the model's was `sent`."""
        if answer.ticket is not None:
            item.ticket_id = answer.ticket.id
        held = answer.ticket is not None and answer.ticket.state == "pending"
        return self.finish(loaded, item, sent + answer.text, timing, completion, held)

    def finish(
        self,
        loaded: ActivePolicies,
        item: Request,
        text: str,
        timing: Timing,
        completion: Completion | None,
        held: bool = False,
    ) -> Reply:
        """The reply, with the outcome written down."""
        item.closed = True
        decision = replace(
            item.decisions[-1], warnings=tuple(dict.fromkeys([*item.decisions[-1].warnings, *item.warnings]))
        )
        response = completion.reply_decision if completion else None
        final = response or decision
        done = self._record(loaded, item, decision, timing, outcome=_outcome(item, final, held))
        counts = {
            "steered_passes": completion.steered_passes if completion else 0,
            "new_tokens": completion.new_tokens if completion else 0,
        }
        keep = loaded.policies.audit.text
        if completion is not None and not final.stops:
            self.conversations.add(loaded.plan, item, completion.turn)
        self.audit.finished(
            replace(
                done,
                text_sha256=text_sha256(text),
                text=text if keep else None,
                reply_decision=response,
                error=done.error or final.error,
                **counts,
            )
        )
        return Reply(
            text=text,
            decision=decision,
            history=history(item, final, text),
            audit_id=item.id,
            outcome=done.outcome or "answered",
            ticket_id=item.ticket_id,
            earlier=tuple(item.decisions[:-1]),
            timing=self._total(item, timing),
            reply_decision=response,
            **counts,
        )

    def ended(
        self, loaded: ActivePolicies, item: Request, outcome: Outcome, error: str | None = None
    ) -> None:
        """Close a request that got no reply."""
        item.closed = True
        unread = Decision(status="not_evaluated", action="block", would_action="block", error=error)
        decision = item.decisions[-1] if item.decisions else unread
        self.audit.finished(self._record(loaded, item, decision, Timing(), outcome=outcome, error=error))

    @contextmanager
    def closing(self, loaded: ActivePolicies, requests: Sequence[Request]) -> Generator[None]:
        """Close the requests' audit records when what happens inside fails."""
        try:
            yield
        except Exception as error:
            for item in requests:
                if not item.closed:
                    self.ended(loaded, item, "error", f"{type(error).__name__}: {error}")
            raise

    def _record(
        self,
        loaded: ActivePolicies,
        item: Request,
        decision: Decision,
        timing: Timing,
        outcome: Outcome | None = None,
        error: str | None = None,
    ) -> AuditRecord:
        record = item.record(decision, self.engine.fingerprint.weights, loaded.policies.audit.text, timing)
        return replace(record, outcome=outcome, error=error or decision.error)

    def _total(self, item: Request, timing: Timing) -> Timing:
        return replace(timing, total=(perf_counter() - item.start) * 1e3)


def _outcome(item: Request, decision: Decision, held: bool) -> Outcome:
    if decision.stops:
        return "escalated" if held else "blocked"
    return "rephrased" if any(earlier.action == "rephrase" for earlier in item.decisions[:-1]) else "answered"
