"""From a decision to what is done about it: the action's response, bounded, and what takes over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel

from guardrail.actions.block import REFUSAL
from guardrail.errors import PromptError, located, outline
from guardrail.files.records import prompt_sha256
from guardrail.pipeline.cancellation import Left
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.tickets import Tickets
from guardrail.plugins.protocols import (
    ActionContext,
    Answer,
    Complete,
    Otherwise,
    Response,
    Retry,
)
from guardrail.plugins.results import checked_response
from guardrail.policy.rules import Rule
from guardrail.types import ALLOW, Decision, Message

log = logging.getLogger("guardrail")

BLOCK = "block"
MAX_ROUNDS = 20
"""No request is evaluated more often than this, whatever its actions ask for."""


@dataclass(frozen=True, slots=True)
class Responder:
    """Lets the actions of policies respond. `tickets` are those that they open.

    `fit` raises PromptError for messages that cannot be a prompt of this exchange.
    """

    tickets: Tickets
    fit: Callable[[Exchange, Sequence[Message]], object]

    def respond(self, exchange: Exchange, complete: Complete) -> Answer | None:
        """The answer in the model's place. None: the exchange has changed, and must be evaluated again.

        `complete` lets the model rewrite something, unguarded.
        """
        decision = exchange.decisions[-1]
        turn = _Turn(exchange, decision, exchange.messages, complete, self.tickets)
        response = turn.response(decision.action)
        if isinstance(response, Retry):
            response = self._fitting(turn, response)
        if isinstance(response, Otherwise):
            response = self._otherwise(turn, response)
        if isinstance(response, Answer):
            return response
        # an action may ask for another round for ever
        if turn.final(response) or len(exchange.decisions) >= MAX_ROUNDS:
            exchange.gave_way(BLOCK)
            return turn.refusal()
        self._retry(turn, response)
        return None

    def _fitting(self, turn: _Turn, response: Retry) -> Retry | Otherwise:
        """The response, unless its messages cannot be evaluated: here there is still something else to do."""
        try:
            self.fit(turn.exchange, response.messages)
        except PromptError:
            turn.exchange.warn(
                f"{turn.policy}: the changed messages do not fit the model or its chat template"
            )
            return Otherwise(turn.rule.otherwise if turn.rule else "block", ticket=response.ticket)  # type: ignore[arg-type]
        return response

    def _otherwise(self, turn: _Turn, otherwise: Otherwise) -> Answer | Retry:
        turn.gives_way(otherwise)
        if otherwise.action == ALLOW and turn.own:
            turn.exchange.gave_way(ALLOW)
            return Retry(turn.messages, waive=frozenset({turn.policy}))
        return turn.other(otherwise)

    def _retry(self, turn: _Turn, response: Retry) -> None:
        turn.exchange.take(response.ticket)
        # a response lifts its own policy at most, and only if that policy names the action
        waived = bool(response.waive) and turn.own
        if waived:
            turn.exchange.warn(f"{turn.policy}: lifted after {turn.decision.action}")
        if waived and response.ticket is not None:
            turn.exchange.lifted += (turn.policy,)
        turn.exchange.attempts[turn.policy] += 1
        turn.exchange.retry(response.messages, frozenset({turn.policy} if waived else ()))

    def stopped(self, exchange: Exchange, decision: Decision, said: str, complete: Complete) -> Answer:
        """The answer after a reply was stopped; `said` is what the model had said, for people who review it.

        Nothing can be evaluated again or allowed any more: whatever is not an answer becomes the refusal.
        """
        messages = (*exchange.messages, Message("assistant", said))
        turn = _Turn(exchange, decision, messages, complete, self.tickets)
        response = turn.response(decision.action)
        if isinstance(response, Otherwise):
            turn.gives_way(response)
            response = turn.other(response)
        if isinstance(response, Answer):
            return response
        exchange.gave_way(BLOCK)
        return turn.refusal()


@dataclass(frozen=True, slots=True)
class _Turn:
    """One decision that an action responds to, with what the action may use."""

    exchange: Exchange
    decision: Decision
    messages: tuple[Message, ...]
    complete: Complete
    tickets: Tickets

    @property
    def rule(self) -> Rule | None:
        """The rule that decided, unless a plugin did."""
        return self.exchange.policies.plan.rule(self.decision.policy)

    @property
    def policy(self) -> str:
        """The id of the policy that decided."""
        return self.decision.policy or ""

    @property
    def own(self) -> bool:
        """Whether the policy itself asked for the action, and not a plugin's review."""
        return self.rule is not None and self.rule.action == self.decision.action

    @property
    def fixed(self) -> bool:
        """Whether nobody can change the prompt: of `generate`, or one that goes to another model."""
        return self.exchange.request.kind in ("generate", "ruling")

    def final(self, response: Retry) -> bool:
        """Whether there cannot be another round: `generate` has one, and other messages are not sent."""
        changed = response.messages != self.exchange.messages
        return self.exchange.request.kind == "generate" or (self.fixed and changed)

    def response(self, name: str) -> Response:
        """What the action called `name` does. One that fails gives way to the policy's `on_error`."""
        action, rule = self.exchange.policies.plugins.actions[name], self.rule
        if name == "rephrase" and self.fixed:
            return Otherwise(rule.otherwise if rule else "block")  # type: ignore[arg-type]
        try:
            return checked_response(action.respond(_config(rule, name, action.Config), self._context()))
        except (KeyboardInterrupt, Left):
            # in the caller's thread this is the caller's own; all else is the action's failure
            raise
        except BaseException as error:
            self._warn_of_failure(name, error)
            return Otherwise(rule.settings.on_error if rule else "block")

    def _warn_of_failure(self, action: str, error: BaseException) -> None:
        log.warning("action %s failed: %s", action, located(error))
        self.exchange.error = f"action `{action}` failed: {outline(error)}"
        self.exchange.warn(self.exchange.error)

    def other(self, otherwise: Otherwise) -> Answer | Retry:
        """What takes over does; it fails to a block, and so does what would allow at this point."""
        name = BLOCK if otherwise.action == ALLOW else otherwise.action
        self.exchange.gave_way(name)
        response = self.response(name)
        if not isinstance(response, Otherwise):
            return response
        self.exchange.gave_way(BLOCK)
        return self.refusal()

    def gives_way(self, otherwise: Otherwise) -> None:
        """Keep the ticket of an action that gives up, and say why it does."""
        self.exchange.take(otherwise.ticket)
        if otherwise.reason is not None:
            self.exchange.warn(f"{self.policy}: {otherwise.action} takes over: {otherwise.reason}")
        if otherwise.failed:
            self.exchange.error = otherwise.reason

    def refusal(self) -> Answer:
        """The policy's message, or the built-in one."""
        return Answer((self.rule.message if self.rule else None) or REFUSAL)

    def _context(self) -> ActionContext:
        request = self.exchange.request
        return ActionContext(
            decision=self.decision,
            messages=self.messages,
            policy=self.policy,
            message=self.rule.message if self.rule else None,
            attempt=self.exchange.attempts[self.policy],
            complete=self.complete,
            sinks=self.tickets.sinks,
            rephrasers=self.exchange.policies.plugins.rephrasers,
            client=request.client,
            ticket_id=request.ticket,
            prompt_sha256=prompt_sha256(self.exchange.messages, request.tools),
            wait=partial(self.tickets.wait, self.exchange.cancellation),
            rendered=request.kind == "generate",
        )


def _config(rule: Rule | None, name: str, config: type[BaseModel]) -> BaseModel:
    """The policy's own configuration if this is its action, else the action's defaults."""
    if rule is not None and rule.action == name and rule.config is not None:
        return rule.config
    return config()
