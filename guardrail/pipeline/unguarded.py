"""The model without a policy's say, for actions that let it rewrite something, and for people who look.

Its text is never a reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guardrail.engines import Engine, Event
from guardrail.pipeline.job import Job
from guardrail.policy.decide_reply import Observed, Watch
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Facts, Message, Sampling

NOTHING = Plan(probes=(), rules=())
UNDECIDED = Decision(status="not_evaluated")


class _Fixed:
    """An evaluator that says the same of every prompt, and nothing of replies."""

    by_plan = False

    def __init__(self, job: Job[Any, str], decision: Decision) -> None:
        self._job, self._decision = job, decision

    @property
    def cancelled(self) -> bool:
        return self._job.cancelled

    def begun(self, waited_s: float) -> None:
        self._job.begin(waited_s)

    def facts(self, row: int) -> Facts:
        return Facts()

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        return self._decision

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        return decision

    def watch(self, row: int) -> Watch:
        return Watch(())

    def respond(self, row: int, observed: Observed) -> Decision:
        return Decision(status="not_evaluated", stage="response")


def unguarded(engine: Engine, messages: Sequence[Message], job: Job[Any, str]) -> str:
    """What the model answers (worker's thread). Raises PromptError if the template refuses the messages."""
    return said(engine, messages, NOTHING, UNDECIDED, Sampling(), job)


def said(
    engine: Engine,
    messages: Sequence[Message],
    plan: Plan,
    decision: Decision,
    sampling: Sampling,
    job: Job[Any, str],
) -> str:
    """What the model answers under this decision (worker's thread), whatever the plan's rules would say.

    Raises PromptError if the template refuses the messages.
    """
    prompt = engine.render(messages, (), plan.positions)
    (completion,) = engine.reply([prompt], plan, _Fixed(job, decision), sampling, _ignore)
    return completion.text


def _ignore(event: Event) -> None:
    """No caller waits for these events."""
