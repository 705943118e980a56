"""The model without a policy, for actions that let it rewrite something. Its text is never a reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guardrail.engines import Engine, Event
from guardrail.pipeline.worker import Job
from guardrail.policy.decide_reply import Observed, Watch
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Facts, Message, Sampling


class _NoPolicies:
    """An evaluator for a plan without rules."""

    by_plan = True

    def __init__(self, job: Job[Any, str]) -> None:
        self._job = job

    @property
    def cancelled(self) -> bool:
        return self._job.cancelled

    def begun(self, waited_s: float) -> None:
        self._job.begin(waited_s)

    def facts(self, row: int) -> Facts:
        return Facts()

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        return Decision(status="not_evaluated")

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        return decision

    def watch(self, row: int) -> Watch:
        return Watch(())

    def respond(self, row: int, observed: Observed) -> Decision:
        return Decision(status="not_evaluated", stage="response")


def unguarded(engine: Engine, messages: Sequence[Message], job: Job[Any, str]) -> str:
    """What the model answers (worker's thread). Raises PromptError if the template refuses the messages."""
    nothing = Plan(probes=(), rules=())
    completions = engine.reply([engine.render(messages)], nothing, _NoPolicies(job), Sampling(), _ignore)
    return completions[0].text


def _ignore(event: Event) -> None:
    """No caller waits for these events."""
