"""The one driver: a batch of exchanges is admitted, decided, written down and answered.

`chat`, `stream`, `check` and `generate` differ only in what they ask of the engine (`Ask`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import inf
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

from guardrail.audit.trail import AuditTrail
from guardrail.engines import (
    ChangingEngine,
    Completion,
    Emit,
    Engine,
    Evaluator,
    Event,
    Prompt,
    Refused,
    Scored,
    check_sampling,
    sampling_options,
)
from guardrail.errors import EvaluationError, QueueFull, RequestError, outline
from guardrail.pipeline.admission import Admission, admit, fitted
from guardrail.pipeline.cancellation import Left
from guardrail.pipeline.conversations import Conversations
from guardrail.pipeline.evaluator import BatchEvaluator, Row, timed_out
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.job import Job
from guardrail.pipeline.plugin_calls import PluginCalls
from guardrail.pipeline.recorder import Recorder
from guardrail.pipeline.respond import Responder
from guardrail.pipeline.tickets import Tickets
from guardrail.pipeline.tool_calls import ToolReader, format_of
from guardrail.pipeline.unguarded import unguarded
from guardrail.pipeline.worker import Worker
from guardrail.plugins.protocols import Answer, Complete, EscalationSink
from guardrail.policy.decide import failure
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Message, Reply, Sampling, Timing

G = TypeVar("G")

Ask: TypeAlias = Callable[[Sequence[Prompt], Plan, Evaluator, Emit], G]
"""What is asked of the engine, on the worker's thread."""


@dataclass(frozen=True)
class Round(Generic[G]):
    """One batch in the engine, after its decisions. `job` is None if no exchange had a prompt to evaluate."""

    admission: Admission
    job: Job[Event, G] | None

    @cached_property
    def goes_on(self) -> bool:
        """Whether the model answers at least one exchange."""
        return any(not exchange.decisions[-1].stops for exchange in self.admission.admitted)

    def result(self) -> G | None:
        """Wait for what the engine returns; None if no exchange goes on."""
        return self.job.result() if self.job is not None and self.goes_on else None


class Driver:
    """Takes exchanges through the engine on the model's worker; records before it hands anything out.

    Methods run on the caller's thread; only jobs run on the worker's. `noticed` is told before each batch
    what has changed in the model, and None if nothing has.
    """

    def __init__(
        self,
        engine: Engine,
        worker: Worker,
        audit: AuditTrail,
        sinks: Mapping[str, EscalationSink],
        noticed: Callable[[str | None], None] | None = None,
    ) -> None:
        self.engine, self.worker = engine, worker
        self.conversations, self._calls = Conversations(engine), PluginCalls()
        self.recorder = Recorder(audit, lambda: engine.fingerprint.weights)
        self._change = engine.change if isinstance(engine, ChangingEngine) else _unchanging
        self._noticed = noticed or (lambda change: None)
        self.tickets = Tickets(sinks, self._calls, audit)
        self.responder = Responder(self.tickets, partial(fitted, engine))

    def close(self) -> None:
        """Finish what runs, refuse what waits, end the threads."""
        self.tickets.close()
        self.worker.close()
        self._calls.close()

    # --- decisions ------------------------------------------------------------------------------------

    def admit(self, batch: Sequence[Exchange], room: int) -> Admission:
        """Render a batch, with `room` tokens left for each reply; those that may share a pass are admitted.

        Raises PromptError, also for those that are left out.
        """
        return admit(self.engine, batch, room).sharing(self.engine)

    def decide(self, admission: Admission, ask: Ask[G]) -> Round[G]:
        """Ask the engine, wait for the decisions, and write them down.

        Raises QueueFull, GuardClosed, EvaluationError, AuditError and what the engine refuses.
        """
        admitted = admission.admitted
        limit = _timeout_s(admitted)
        job = self._submit(admission, ask, limit) if admitted else None
        found, timing = self._decisions(job, admitted, limit) if job else ([], Timing())
        for exchange, decision in zip(admission.batch, admission.merged(found), strict=True):
            exchange.decided(decision, timing)
            self.recorder.decided(exchange)
        return Round(admission, job)

    def sampling(self, sampling: Sampling, exchanges: Sequence[Exchange]) -> Sampling:
        """The sampling for these exchanges, which get what reads the calls of tools in their replies."""
        for exchange in exchanges:
            if exchange.request.tools:
                exchange.reader = self._reader(exchange)
        known = "special_tokens" in sampling_options(self.engine)
        reads = any(exchange.reader and exchange.reader.reads for exchange in exchanges)
        # marks of calls may be special tokens, which are left out of other replies
        return replace(sampling, special_tokens=True) if reads and known else sampling

    def _reader(self, exchange: Exchange) -> ToolReader:
        tools, tokenizer = exchange.request.tools, self.engine.tokenizer
        own = tokenizer if getattr(tokenizer, "response_template", None) else None

        def prompt() -> str:
            return str(tokenizer.decode(self.engine.render(exchange.messages, tools).ids))

        return ToolReader(tools, format_of(self.engine), own, prompt)

    def _submit(self, admission: Admission, ask: Ask[G], limit: float) -> Job[Event, G]:
        admitted, prompts = admission.admitted, admission.prompts
        # copies: after a time-out the caller's thread changes the exchange while the worker still decides
        policies, rows = admitted[0].policies, [Row.of(exchange) for exchange in admitted]

        # the answer to a time-out says nothing about the prompt; what policies would have said is kept
        def late(row: int, decision: Decision) -> None:
            self.recorder.late(admitted[row], decision)

        def run(job: Job[Event, G]) -> G:
            # made here, so that scorers run under the time limit and beside no other request
            self._noticed(change := self._change())
            talks = self.conversations
            evaluator = BatchEvaluator(policies, rows, job, limit, late, talks, self._calls, change)
            found = ask(prompts, policies.plan, evaluator, job.emit)
            talks.remember(policies.plan, [row.talk for row in rows], found)
            return found

        return self.worker.submit(run, admitted[0].cancellation)

    def _decisions(
        self, job: Job[Event, Any], batch: Sequence[Exchange], limit: float
    ) -> tuple[list[Decision], Timing]:
        """Wait for the verdict, no longer than policies allow from the worker's start."""
        # a busy model does not use up the time that policies allow for a decision
        if not job.wait_until_started(self.worker.patience_s):
            raise QueueFull(f"the model did not get to this request within {self.worker.patience_s:.0f} s")
        queued = Timing(queue=(job.started - job.submitted) * 1e3)
        try:
            event = _first_event(job, batch, limit)
        except (RequestError, Left):
            raise
        except Refused as refused:
            # the caller sees the error that `model.generate` would have raised
            raise refused.error from None
        except Exception as error:
            return _failed(batch, error), queued
        if event is None:
            return _late(batch, limit), queued
        decisions = list[object](event.decisions)
        found = [decision for decision in decisions if isinstance(decision, Decision)]
        if not len(batch) == len(decisions) == len(found):
            raise EvaluationError("the engine did not decide once for every prompt")
        return found, replace(event.timing, queue=queued.queue)

    def replying(self, sampling: Sampling, stream: bool = False) -> Ask[Sequence[Completion]]:
        """Decide, and answer the rows that go on. `stream` (one row) emits text as it comes.

        Raises UnsupportedGeneration for options that the engine does not know.
        """
        check_sampling(self.engine, sampling)

        def ask(
            prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit
        ) -> Sequence[Completion]:
            completions = self.engine.reply(prompts, plan, evaluator, sampling, emit, stream)
            return _whole(completions, len(prompts))

        return ask

    # --- answers --------------------------------------------------------------------------------------

    def answer(self, exchange: Exchange, completion: Completion | None) -> Answer | None:
        """The model's reply, or an action's in its place.

        None: an action has changed the messages, and they must be evaluated again.
        """
        if exchange.decisions[-1].stops:
            return self.responder.respond(exchange, self.completing(exchange))
        if not isinstance(completion, Completion):
            raise EvaluationError("the prompt was allowed and nothing was generated")
        exchange.completion = completion
        if (stopped := completion.stopped) is not None:
            return self.responder.stopped(exchange, stopped, completion.text, self.completing(exchange))
        return Answer(completion.text)

    def finish(self, exchange: Exchange, answer: Answer) -> Reply:
        """The reply, with its outcome written down. Raises Left if nobody waits for it."""
        exchange.cancellation.check()
        exchange.take(answer.ticket)
        exchange.answered_by = answer.by
        pending = answer.ticket is not None and answer.ticket.state == "pending"
        return self.recorder.replied(exchange, answer.text, pending)

    def completing(self, exchange: Exchange) -> Complete:
        """Lets the model answer without a policy, while the exchange lasts: to rewrite, never to reply."""

        def complete(messages: Sequence[Message]) -> str:
            job = self.worker.submit(partial(unguarded, self.engine, messages), exchange.cancellation)
            return job.result()

        return complete


def _unchanging() -> None:
    """An engine that keeps its model to itself."""


def _whole(completions: object, rows: int) -> Sequence[Completion]:
    """What an engine returned for a batch. Raises EvaluationError unless it is a completion for each row."""
    found = list(completions) if isinstance(completions, list | tuple) else []  # pyright: ignore[reportUnknownArgumentType]
    if len(found) != rows or not all(isinstance(completion, Completion) for completion in found):
        raise EvaluationError("the engine did not return one completion for every prompt")
    return found


def _timeout_s(batch: Sequence[Exchange]) -> float:
    """What all exchanges of the batch may take, one after another; one without a limit adds the longest."""
    limits = [exchange.policies.plan.live(exchange.facts).timeout_s for exchange in batch]
    finite = [limit for limit in limits if limit < inf]
    return sum(finite) + (len(limits) - len(finite)) * max(finite) if finite else inf


def _first_event(job: Job[Event, Any], batch: Sequence[Exchange], limit: float) -> Scored | None:
    """The decisions; None if the time was up and nothing that comes late is needed."""
    left = None if limit == inf else max(0.0, job.started + limit - perf_counter())
    try:
        event = job.next_event(left)
    except TimeoutError:
        # the forward pass cannot be interrupted, but a refusal or a mere decision needs nothing from it
        if batch[0].request.kind in ("check", "ruling") or all(
            decision.stops for decision in _late(batch, limit)
        ):
            job.cancel(timed_out=True)
            return None
        # failing open needs the reply, which comes from this very pass; the evaluator notes that it is late
        event = job.next_event()
    if not isinstance(event, Scored):
        raise EvaluationError("generation ended without a decision")
    return event


def _late(batch: Sequence[Exchange], limit: float) -> list[Decision]:
    return [timed_out(exchange.policies.plan, exchange.facts, limit) for exchange in batch]


def _failed(batch: Sequence[Exchange], error: Exception) -> list[Decision]:
    """The engine broke before it decided. If policies fail open there is no reply either: raise."""
    text = outline(error, batch[0].policies.policies.audit.text)
    decisions = [failure(exchange.policies.plan, exchange.facts, text) for exchange in batch]
    if not all(decision.stops for decision in decisions):
        raise error
    return decisions
