"""From a decision to what is done about it: the action's response, bounded, and what takes over otherwise."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel

from guardrail.actions.block import REFUSAL
from guardrail.pipeline.request import Request
from guardrail.plugins.protocols import (
    ActionContext,
    Answer,
    Complete,
    EscalationSink,
    Otherwise,
    Response,
    Retry,
)
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.plan import Rule
from guardrail.types import ALLOW, Decision, Message

log = logging.getLogger("guardrail")

MAX_ROUNDS = 20
"""No request is evaluated more often than this, whatever its actions ask for."""


@dataclass(frozen=True, slots=True)
class Responder:
    """Lets actions respond. `retries` is false where there are no messages to evaluate again."""

    loaded: ActivePolicies
    complete: Complete
    sinks: Mapping[str, EscalationSink]
    retries: bool = True

    def respond(self, request: Request, decision: Decision) -> Answer | None:
        """The answer in the model's place, or None: the request has changed and is to be evaluated again."""
        policy = decision.policy or ""
        response = self._response(request, decision, decision.action)
        if isinstance(response, Otherwise):
            response = self._otherwise(request, decision, response)
        if isinstance(response, Answer):
            return response
        if not self.retries or len(request.decisions) >= MAX_ROUNDS:
            return Answer(self._message(decision) or REFUSAL)
        if response.ticket is not None:
            request.ticket_id = response.ticket.id
        self._waive(request, decision, response.waive)
        request.attempts[policy] += 1
        request.messages = response.messages
        return None

    def stopped(self, request: Request, decision: Decision, said: str) -> Answer:
        """The answer after a reply was stopped; `said` is what the model had said, for those who look at it.

        Nothing can be evaluated again or allowed any more: what is no answer becomes the refusal.
        """
        messages = (*request.messages, Message("assistant", said))
        response = self._response(request, decision, decision.action, messages)
        if isinstance(response, Otherwise):
            if response.ticket is not None:
                request.ticket_id = response.ticket.id
            name = "block" if response.action == ALLOW else response.action
            response = self._response(request, decision, name, messages)
        return response if isinstance(response, Answer) else Answer(self._message(decision) or REFUSAL)

    def _waive(self, request: Request, decision: Decision, waive: frozenset[str]) -> None:
        """A response lifts its own policy at most, and only where that policy names the action."""
        if waive and self._own(decision):
            request.warn(f"{decision.policy}: lifted after {decision.action}")
            request.facts = replace(request.facts, waived=request.facts.waived | {decision.policy or ""})

    def _own(self, decision: Decision) -> bool:
        """Whether the policy itself asked for the action that was decided, and not a plugin's review."""
        rule = self.loaded.plan.rule(decision.policy)
        return rule is not None and rule.action == decision.action

    def _otherwise(self, request: Request, decision: Decision, otherwise: Otherwise) -> Answer | Retry:
        if otherwise.ticket is not None:
            request.ticket_id = otherwise.ticket.id
        if otherwise.action == ALLOW and self._own(decision):
            return Retry(request.messages, waive=frozenset({decision.policy or ""}))
        name = "block" if otherwise.action == ALLOW else otherwise.action
        response = self._response(request, decision, name)
        return Answer(self._message(decision) or REFUSAL) if isinstance(response, Otherwise) else response

    def _response(
        self, request: Request, decision: Decision, name: str, messages: tuple[Message, ...] | None = None
    ) -> Response:
        action = self.loaded.plugins.actions[name]
        rule = self.loaded.plan.rule(decision.policy)
        if name == "rephrase" and not self.retries:
            return Otherwise(rule.otherwise if rule else "block")  # type: ignore[arg-type]
        try:
            context = self._context(request, decision, rule, messages or request.messages)
            return checked(action.respond(_config(rule, name, action.Config), context))
        except Exception as error:
            log.warning("action %s failed", name, exc_info=True)
            request.warn(f"action `{name}` failed: {type(error).__name__}")
            return Otherwise(rule.settings.on_error if rule else "block")

    def _context(
        self, request: Request, decision: Decision, rule: Rule | None, messages: tuple[Message, ...]
    ) -> ActionContext:
        policy = rule.id if rule else decision.policy or ""
        return ActionContext(
            decision=decision,
            messages=messages,
            policy=policy,
            message=rule.message if rule else None,
            attempt=request.attempts[policy],
            complete=self.complete,
            sinks=self.sinks,
            rephrasers=self.loaded.plugins.rephrasers,
        )

    def _message(self, decision: Decision) -> str | None:
        rule = self.loaded.plan.rule(decision.policy)
        return rule.message if rule else None


def checked(response: object) -> Response:
    """What an action returned, if it is a response at all. Raises TypeError."""
    text = getattr(response, "text", "")
    known = not isinstance(response, Otherwise) or response.action in ("block", "allow", "escalate")
    if not isinstance(response, Answer | Retry | Otherwise) or not isinstance(text, str) or not known:
        raise TypeError(f"{response!r} is no response")
    return response


def _config(rule: Rule | None, name: str, config: type[BaseModel]) -> BaseModel:
    """The policy's own configuration where this is its action, else the action's defaults."""
    if rule is not None and rule.action == name and rule.config is not None:
        return rule.config
    return config()
