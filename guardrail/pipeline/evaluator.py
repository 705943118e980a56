"""One batch under evaluation: what the engine asks for a decision, on the worker's thread.

Adds to the pure `evaluate` what is not pure: scorers, reviewing plugins, the time limit, absent callers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Any

from guardrail.errors import EvaluationError
from guardrail.pipeline.conversations import Conversations
from guardrail.pipeline.request import Request
from guardrail.pipeline.worker import Job
from guardrail.policy.decide import decide, failure, recheck, tighten
from guardrail.policy.decide_reply import Observed, Watch, decide_reply, reply_failure, watch
from guardrail.policy.loading import ActivePolicies
from guardrail.types import Decision, Facts

log = logging.getLogger("guardrail")


class Evaluation:
    """Decides on the rows of one batch; an Evaluator as the engines know it."""

    def __init__(
        self, loaded: ActivePolicies, requests: Sequence[Request], conversations: Conversations | None = None
    ) -> None:
        self.loaded, self.requests, self.conversations = loaded, requests, conversations
        self.facts = [request.facts for request in requests]
        self.timed_out = False
        self.on_late: Callable[[int, Decision], None] = lambda row, decision: None
        self._scorer_errors: dict[int, str] = {}
        self._job: Job[Any, Any] | None = None

    @cached_property
    def timeout_s(self) -> float:
        """The shortest time limit of the rules that are enforced for some row."""
        return min(self.loaded.plan.live(facts).timeout_s for facts in self.facts)

    @property
    def by_plan(self) -> bool:
        """Whether no person and no plugin has a say besides the plan."""
        return not self.loaded.plugins.reviews and not any(facts.waived for facts in self.facts)

    def start(self, job: Job[Any, Any]) -> None:
        """Run the scorers, and look at where conversations stand (worker's thread)."""
        self._job = job
        if self.conversations is not None and self.loaded.plan.reply_probes:
            self._drift(self.conversations)
        for row, facts in enumerate(self.facts):
            if needed := self.loaded.plan.live(facts).scorers:
                self.facts[row] = self._scored(row, needed)

    def _drift(self, conversations: Conversations) -> None:
        for row, request in enumerate(self.requests):
            try:
                values = conversations.values(self.loaded.plan, request)
            except Exception as error:
                log.warning("the replies of a conversation could not be read", exc_info=True)
                reason = str(error) if isinstance(error, EvaluationError) else type(error).__name__
                self._scorer_errors[row] = f"the replies of the conversation could not be read: {reason}"
                continue
            self.facts[row] = replace(self.facts[row], drift=values)

    def _scored(self, row: int, needed: Sequence[str]) -> Facts:
        extra: dict[str, float] = {}
        for name in needed:
            try:
                extra[name] = float(self.loaded.plugins.scorers[name].score(self.requests[row].messages))
            except Exception as error:
                # the message may hold the prompt, and decisions are written to logs
                log.warning("scorer %s failed", name, exc_info=True)
                self._scorer_errors[row] = f"scorer `{name}` failed: {type(error).__name__}"
        return replace(self.facts[row], extra=extra)

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        """The decision on one row. Raises CancelledError where nobody waits for it any more."""
        decision = self._in_time(row, readings)
        if self._job is not None and self._job.cancelled:
            if self.timed_out:
                self.on_late(row, decision)
            raise CancelledError
        return decision

    def _in_time(self, row: int, readings: Sequence[float]) -> Decision:
        decision = self._decision(row, readings)
        if self.timed_out or self._elapsed() <= self.timeout_s:
            return decision
        late = self.failed(row, self.timeout_message(), timeout=True)
        order = self.loaded.plan.strengths
        known = order.get(decision.action, 0) > order.get(late.action, 0)
        return replace(decision, warnings=(*decision.warnings, late.error or "")) if known else late

    def _decision(self, row: int, readings: Sequence[float]) -> Decision:
        decision = decide(self.loaded.plan, readings, self.facts[row])
        if decision.status == "error" and row in self._scorer_errors:
            decision = replace(decision, error=self._scorer_errors[row])
        try:
            return self._reviewed(row, decision)
        except EvaluationError as error:
            return self.failed(row, str(error))

    def _reviewed(self, row: int, decision: Decision) -> Decision:
        plugins = self.loaded.plugins
        for name, action in plugins.review(decision, self.requests[row].messages):
            note = f"plugin `{name}` asked for {action}"
            decision = tighten(self.loaded.plan, decision, action, note, name in plugins.named)
        return decision

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        """The decision after steering, as of what was read at this layer."""
        return recheck(self.loaded.plan, decision, readings, layer)

    def watch(self, row: int) -> Watch:
        """What to follow of the reply; the mean of the turn only where the conversation has a name."""
        turn = self.requests[row].named and bool(self.loaded.plan.drifts)
        return watch(self.loaded.plan, self.facts[row], turn)

    def respond(self, row: int, observed: Observed) -> Decision:
        """The decision on a reply, as far as it was observed."""
        try:
            return decide_reply(self.loaded.plan, observed, self.facts[row])
        except Exception as error:
            log.warning("a reply could not be evaluated", exc_info=True)
            return reply_failure(self.loaded.plan, self.facts[row], type(error).__name__)

    def failed(self, row: int, error: str, timeout: bool = False) -> Decision:
        """The decision where nothing could be evaluated."""
        return failure(self.loaded.plan, self.facts[row], error, timeout)

    def timeout_message(self) -> str:
        """What a timed-out decision says."""
        return f"not decided within {self.timeout_s * 1e3:.0f} ms"

    def _elapsed(self) -> float:
        return perf_counter() - self._job.started if self._job is not None else 0.0
