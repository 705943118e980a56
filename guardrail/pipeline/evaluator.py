"""What the engine asks for decisions on one batch. Lives entirely on the worker's thread.

Adds to the pure `policy.decide` what is not pure: scorers, reviewing plugins, the time limit, callers that
have gone away.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from guardrail.errors import EvaluationError, located, outline
from guardrail.pipeline.conversations import Conversations
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.job import Job
from guardrail.pipeline.messages import Tool
from guardrail.pipeline.plugin_calls import PluginCalls
from guardrail.pipeline.request import Talk
from guardrail.plugins.manager import Review
from guardrail.plugins.results import checked_score
from guardrail.policy.decide import changed_model, decide, failure, recheck, stale, tighten, unreviewed
from guardrail.policy.decide_reply import Observed, Watch, decide_reply, reply_failure, watch
from guardrail.policy.model import Defaults
from guardrail.policy.plan import Plan
from guardrail.policy.rules import Live, Rule
from guardrail.types import Decision, Facts, Message

if TYPE_CHECKING:
    from guardrail.policy.loading import ActivePolicies

log = logging.getLogger("guardrail")

PATIENCE_S = Defaults().timeout_ms / 1e3
"""The time limit of plugins if no policy applies that has one."""
Late = Callable[[int, Decision], None]
"""Told the row and the decision that came after the time was up."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is decided on: an exchange as it was when the caller's thread handed it over."""

    messages: tuple[Message, ...]
    facts: Facts
    talk: Talk | None
    """The conversation, if the caller gave its id."""
    tools: tuple[Tool, ...] = ()

    @classmethod
    def of(cls, exchange: Exchange) -> Row:
        """The exchange as it is now."""
        request = exchange.request
        return cls(exchange.messages, exchange.facts, request.talk, request.tools)

    @property
    def texts(self) -> tuple[Message, ...]:
        """Everything that the model reads, for those who read text: tools as a system message in front."""
        tools = [Message("system", json.dumps(self.tools, ensure_ascii=False))] if self.tools else []
        return (*tools, *self.messages)


class BatchEvaluator:
    """Decides on the rows of one batch: the `Evaluator` that engines are given.

    Making one runs the scorers and looks up the alarms of conversations; make it on the worker's thread.
    `job` is the work that it decides for, `timeout_s` the time limit from the job's start, `change` says what
    has changed in the model since it was loaded.
    """

    def __init__(
        self,
        policies: ActivePolicies,
        rows: Sequence[Row],
        job: Job[Any, Any],
        timeout_s: float,
        late: Late,
        conversations: Conversations,
        calls: PluginCalls,
        change: str | None = None,
    ) -> None:
        self._policies, self._plan, self._rows = policies, policies.plan, rows
        self._job, self._timeout_s, self._late = job, timeout_s, late
        self._conversations, self._calls, self._change = conversations, calls, change
        self._stale = self._plan.stale(datetime.now(UTC))
        self._errors: dict[int, str] = {}
        self._slow: dict[int, set[str]] = defaultdict(set)
        self._facts = [self._gathered(i, row) for i, row in enumerate(rows)]

    @property
    def by_plan(self) -> bool:
        """Whether nothing has a say besides the plan: no person, no plugin, no change, nothing stale."""
        if self._change or self._stale:
            return False
        return not self._policies.plugins.reviews and not any(facts.waived for facts in self._facts)

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits."""
        return self._job.cancelled

    def begun(self, waited_s: float) -> None:
        """The engine begins; before, the batch has waited this long for others in it."""
        self._job.begin(waited_s)

    # --- facts ----------------------------------------------------------------------------------------

    def facts(self, row: int) -> Facts:
        """What the policies may check about a row, with the scores of scorers and the values of alarms."""
        return self._facts[row]

    def _gathered(self, i: int, row: Row) -> Facts:
        facts = replace(row.facts, stale=self._stale) if self._stale else row.facts
        if self._plan.drifts:
            facts = replace(facts, drift=self._alarms(i, row))
        live = self._plan.live(facts)
        if live.scorers:
            facts = replace(facts, extra=self._scored(i, row, live))
        return facts

    def _alarms(self, i: int, row: Row) -> Mapping[str, float]:
        try:
            return self._conversations.values(self._plan, row.talk, row.messages)
        except BaseException as error:
            log.warning("the replies of a conversation could not be read: %s", located(error))
            self._errors[i] = f"the replies of the conversation could not be read: {outline(error)}"
            # a missing value is an error of the policies that need it, and of no others
            return {}

    def _scored(self, i: int, row: Row, live: Live) -> Mapping[str, float]:
        extra: dict[str, float] = {}
        end = self._end(live)
        for name in live.scorers:
            score = partial(self._policies.plugins.scorers[name].score, row.texts)
            try:
                extra[name] = checked_score(self._calls.call(name, score, end - perf_counter()))
            except TimeoutError:
                self._errors[i] = f"scorer `{name}` was not done in time"
                self._slow[i].add(name)
            except BaseException as error:
                # no signal reaches this thread: whatever comes is the scorer's own
                log.warning("scorer %s failed: %s", name, located(error))
                self._errors[i] = f"scorer `{name}` failed: {outline(error)}"
        return extra

    # --- prompts --------------------------------------------------------------------------------------

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        """The decision on one row. Raises CancelledError if the caller no longer waits."""
        self._job.begin()
        decision = self._in_time(row, self._decision(row, readings))
        if self._job.cancelled:
            # a caller that was refused because the time was up has an audit record, to which this decision
            # belongs. One that left by itself has closed its record
            if self._job.timed_out:
                self._late(row, decision)
            # leaves the pass before anything is generated in vain
            raise CancelledError
        return decision

    def _in_time(self, row: int, decision: Decision) -> Decision:
        """The decision, or what takes its place if it came too late for a caller who is still there."""
        # after `timed_out` the caller has its answer, and the record wants the decision as it is
        if self._job.timed_out or perf_counter() - self._job.started <= self._timeout_s:
            return decision
        late = timed_out(self._plan, self._facts[row], self._timeout_s)
        order = self._plan.strengths
        # `on_timeout` stands in for a decision that is unknown: one that is known and stricter stands
        known = order.get(decision.action, 0) > order.get(late.action, 0)
        return replace(decision, warnings=(*decision.warnings, late.error or "")) if known else late

    def _decision(self, row: int, readings: Sequence[float]) -> Decision:
        decision = decide(self._plan_of(row), readings, self._facts[row])
        if decision.status == "error" and row in self._errors:
            decision = replace(decision, error=self._errors[row])
        if self._stale:
            decision = stale(self._plan, self._facts[row], decision)
        if self._change:
            decision = changed_model(self._plan, self._facts[row], decision, self._change)
        return self._reviewed(row, decision)

    def _plan_of(self, row: int) -> Plan:
        """The plan; for rules whose scorer was too slow, a failure is what `on_timeout` says."""
        if not self._slow[row]:
            return self._plan
        return replace(self._plan, rules=tuple(_hurried(rule, self._slow[row]) for rule in self._plan.rules))

    def _reviewed(self, row: int, decision: Decision) -> Decision:
        """The decision with what plugins ask for. One that fails silences neither policies nor others."""
        plugins, reviewed = self._policies.plugins, decision
        if not plugins.reviews:
            return decision
        failures: list[BaseException] = []
        end = self._end(self._plan.live(self._facts[row]))
        for name, review in plugins.reviewers(decision, self._rows[row].messages):
            try:
                action = self._review(end, name, review)
            except BaseException as error:
                failures.append(error)
                continue
            if action is not None:
                note = f"plugin `{name}` asked for {action}"
                reviewed = tighten(self._plan, reviewed, action, note, name in plugins.named)
        for error in failures:
            reviewed = self._unreviewed(row, reviewed, error)
        return reviewed

    def _unreviewed(self, row: int, decision: Decision, error: BaseException) -> Decision:
        """The decision if a plugin failed that may have been about to block."""
        plain = isinstance(error, TimeoutError | EvaluationError)
        text = str(error) if plain else outline(error)
        return unreviewed(self._plan, self._facts[row], decision, text, isinstance(error, TimeoutError))

    def _review(self, end: float, plugin: str, review: Review) -> str | None:
        """A plugin's review. Raises TimeoutError: it runs in the forward pass, for which others wait."""
        try:
            return self._calls.call(f"review-{plugin}", review, end - perf_counter())
        except TimeoutError:
            raise TimeoutError(f"plugin `{plugin}` was not done with its review in time") from None

    def _end(self, live: Live) -> float:
        """When plugins that are called now must be done."""
        patience_s = live.patience_s if live.rules else PATIENCE_S
        return min(self._job.started + self._timeout_s, perf_counter() + patience_s)

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        """The decision after steering, from what was read at this layer."""
        return recheck(self._plan, decision, readings, layer)

    # --- replies --------------------------------------------------------------------------------------

    def watch(self, row: int) -> Watch:
        """What to follow of the reply; the mean of the turn only if the conversation has a name."""
        named = self._rows[row].talk is not None
        return watch(self._plan, self._facts[row], named and bool(self._plan.drifts))

    def respond(self, row: int, observed: Observed) -> Decision:
        """The decision on a reply, from what was observed so far."""
        try:
            return decide_reply(self._plan, observed, self._facts[row])
        except BaseException as error:
            # policies say what a failure means; raising would end the reply without asking them
            log.warning("a reply could not be evaluated: %s", located(error))
            return reply_failure(self._plan, self._facts[row], type(error).__name__)


def _hurried(rule: Rule, slow: Collection[str]) -> Rule:
    if not any(c.layer is None and c.trait in slow for c in rule.conditions):
        return rule
    return replace(rule, settings=rule.settings.model_copy(update={"on_error": rule.on_timeout}))


def timed_out(plan: Plan, facts: Facts, timeout_s: float) -> Decision:
    """The decision if the time was up before there was one."""
    return failure(plan, facts, f"not decided within {timeout_s * 1e3:.0f} ms", timeout=True)
