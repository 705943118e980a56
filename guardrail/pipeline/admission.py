"""Which requests of a batch can be evaluated: rendered, cut where policies allow it, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.engines import Engine, Prompt
from guardrail.errors import PromptError
from guardrail.pipeline.request import Request
from guardrail.policy.decide import unsupported
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.plan import Plan
from guardrail.types import Decision


@dataclass(frozen=True, slots=True)
class Admission:
    """A batch, each request with its prompt, or with the decision that was made without one."""

    requests: Sequence[Request]
    outcomes: Sequence[Prompt | Decision]

    @property
    def rows(self) -> list[int]:
        """The requests that have a prompt, by their place in the batch."""
        return [i for i, outcome in enumerate(self.outcomes) if isinstance(outcome, Prompt)]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts of `rows`."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Prompt)]

    @property
    def admitted(self) -> list[Request]:
        """The requests of `rows`."""
        return [self.requests[i] for i in self.rows]

    def merged(self, decided: Sequence[Decision]) -> list[Decision]:
        """A decision for every request, given those on `rows`."""
        found = iter(decided)
        return [next(found) if isinstance(outcome, Prompt) else outcome for outcome in self.outcomes]


def admit(engine: Engine, loaded: ActivePolicies, requests: Sequence[Request], room: int) -> Admission:
    """Render a batch, leaving `room` tokens for replies.

    Raises PromptError for a prompt that does not fit and that no policy allows to cut.
    """
    return Admission(requests, [_outcome(engine, loaded, item, room) for item in requests])


def _outcome(engine: Engine, loaded: ActivePolicies, item: Request, room: int) -> Prompt | Decision:
    if item.unreadable is not None:
        decision = unsupported(loaded.plan, item.facts, item.unreadable)
        if decision.stops:
            return decision
        item.warn(f"evaluated without what cannot be read: {item.unreadable}")
    prompt = engine.render(item.messages)
    limit = engine.max_tokens - min(room, engine.max_tokens // 2)
    if len(prompt.ids) > limit:
        prompt = _cut(loaded.plan, item, prompt, limit)
    item.prompt_tokens = len(prompt.ids)
    return prompt


def _cut(plan: Plan, item: Request, prompt: Prompt, limit: int) -> Prompt:
    live = plan.live(item.facts).rules
    rules = [rule for rule, mode in live if mode == "enforce"] or [rule for rule, _ in live]
    dropped = len(prompt.ids) - limit
    if not rules or any(rule.settings.on_truncate == "error" for rule in rules):
        raise PromptError(
            f"the prompt has {len(prompt.ids)} tokens, {dropped} more than fit beside the reply"
        )
    item.warn(f"truncated: the first {dropped} tokens were dropped, only the rest was evaluated")
    return Prompt(prompt.ids[dropped:])
