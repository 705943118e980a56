"""What the guard makes of what workers tell: they did as its policies say, or it is an error."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from guardrail.engines import Completion
from guardrail.errors import EvaluationError, SteeringError
from guardrail.pipeline.evaluator import BatchEvaluator, Row
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.job import Job
from guardrail.policy.decide_reply import Observed
from guardrail.types import Decision, Facts
from guardrail_vllm.item import applied
from guardrail_vllm.plans import read
from guardrail_vllm.serving.outputs import Replies
from guardrail_vllm.worker.reports import Decided, Ended, Rechecked

if TYPE_CHECKING:
    from guardrail_vllm.serving.door import Door

DIFFERENT = "a worker did `{}` with a prompt for which the policies say `{}`"


class Evaluation:
    """Making one runs scorers, which may take as long as the policies allow."""

    def __init__(self, door: Door, exchange: Exchange, limit_s: float) -> None:
        self._plan = exchange.policies.plan
        self._job: Job[Any, Any] = Job(lambda _: None)
        self._job.started = perf_counter()
        talks = door.guard.driver.conversations
        rows, late = [Row.of(exchange)], partial(door.late, exchange)
        self._told: Decided | None = None
        self._inner = BatchEvaluator(exchange.policies, rows, self._job, limit_s, late, talks, door.calls)

    @property
    def facts(self) -> Facts:
        """What the decision depends on besides the readings."""
        return self._inner.facts(0)

    def decided(self, told: Decided, again: list[Rechecked]) -> Decision:
        """The decision, from what was read. Raises EvaluationError if the worker did something else."""
        if told.error is not None:
            raise EvaluationError(told.error)
        # the time limit counts from when a worker began
        self._job.started = told.began
        decision = self._inner.decide(0, told.readings)
        for one in again:
            decision = self._inner.recheck(0, decision, one.readings, one.layer)
        if self._inner.by_plan and decision.status == "evaluated":
            self._compare(told, decision)
        self._told = told
        return decision

    def done(self, decision: Decision) -> bool:
        """Whether the worker has done what a decision to go on asks for."""
        did, steering = self._told, [one.policy for one in decision.steering]
        return did is not None and not applied(self._plan, did).stops and did.steering == steering

    def _compare(self, told: Decided, decision: Decision) -> None:
        if (told.action, told.steering) != (decision.action, [one.policy for one in decision.steering]):
            raise EvaluationError(DIFFERENT.format(told.action, decision.action))

    @property
    def follows(self) -> bool:
        """Whether policies are about the reply."""
        return self._inner.watch(0).anything

    def completion(self, decision: Decision, replies: Replies, told: Ended) -> Completion:
        """A reply that was steered or followed. Raises SteeringError and EvaluationError."""
        if told.error is not None:
            raise EvaluationError(told.error)
        if decision.steering and not told.passes:
            raise SteeringError("steering was decided, and no forward pass was steered")
        found = None
        if self._plan.reply_rules and self.follows:
            observed = Observed(tokens=0) if told.observed is None else read(told.observed, Observed)
            found = self._inner.respond(0, observed)
        turn = None if told.turn is None else tuple(told.turn)
        return replies.completion(decision, told.passes, reply_decision=found, turn=turn)
