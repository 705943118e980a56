"""One prompt on its way through continuous batching: what is decided, steered and generated."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import copy_context
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeAlias, TypeVar

from torch import Tensor

from guardrail.engines import Completion, Evaluator, Prompt
from guardrail.engines.transformers.continuous.choosing import Chooser
from guardrail.engines.transformers.monitor import ReplyMonitor
from guardrail.engines.transformers.replies import Followed
from guardrail.engines.transformers.steering import BatchSteering
from guardrail.errors import EvaluationError, SteeringError
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Position, TokenLogprob

T = TypeVar("T")
_ids = itertools.count()

Told: TypeAlias = "Callable[[Request], None]"
"""Told that something has happened to a request, on the manager's thread."""


@dataclass(eq=False, kw_only=True)
class Request:
    """One prompt. The manager's thread changes it until it is `over`, then it belongs to the caller's.

    `chooser` is None if nothing is to be generated. `streams`: whether `told` is called for every token,
    not only for the decision and the end.
    """

    prompt: Prompt
    plan: Plan
    evaluator: Evaluator
    row: int
    chooser: Chooser | None
    told: Told
    streams: bool = False
    id: str = field(default_factory=lambda: f"request-{next(_ids)}")
    submitted: float = field(default_factory=perf_counter)
    decision: Decision | None = None
    steering: BatchSteering | None = None
    monitor: ReplyMonitor | None = None
    error: Exception | None = None
    over: bool = False
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob | None] = field(default_factory=list["TokenLogprob | None"])
    sums: dict[tuple[int, Position], Tensor] = field(default_factory=dict[tuple[int, Position], Tensor])
    """Of the states that a mean is taken of, by layer, over the pieces of the prompt so far."""
    prefill_s: float = 0.0
    guard_s: float = 0.0

    def __post_init__(self) -> None:
        # decisions may ask plugins, which have to see whose request they are called for
        self._context = copy_context()

    @property
    def length(self) -> int:
        """The tokens of the prompt."""
        return len(self.prompt.ids)

    @property
    def longest(self) -> int:
        """The most tokens that are generated."""
        return self.chooser.longest if self.chooser is not None else 0

    @property
    def done(self) -> bool:
        """Whether no pass has to compute anything more for it."""
        decision = self.decision
        return self.over or (decision is not None and (decision.stops or self.chooser is None))

    def inside(self, call: Callable[[], T]) -> T:
        """Call something in the context of the request's own thread."""
        return self._context.run(call)

    def decided(self, decision: Decision) -> None:
        """Take the decision. The request is over if it stops the prompt, or if nothing is to be generated."""
        self.decision = decision
        if decision.steering and self.chooser is not None:
            self.steering = BatchSteering([decision], 1, self.plan.order)
        self.sums.clear()

    def take(self, token: int) -> None:
        """One more token of the reply, chosen for it. The request is over if the reply ends with it."""
        assert self.chooser is not None
        if self.monitor is not None and self.monitor.stopped:
            self.end()
            return
        # in this order, because the caller's thread counts the tokens
        self.logprobs.append(self.chooser.logprob(token))
        self.tokens.append(token)
        if self.chooser.ended(self.tokens):
            self.end()
        elif self.streams:
            self.told(self)

    def end(self, error: BaseException | None = None) -> None:
        """The request is over, because of this error if there is one. Only the first end counts."""
        if self.over:
            return
        if error is not None and not isinstance(error, Exception):
            # raised again in a caller's thread, SystemExit would end the caller's program
            failure = RuntimeError(f"{type(error).__name__} was raised on the guard's thread")
            failure.__cause__ = error
            error = failure
        self.error, self.over = error, True
        self.told(self)

    def leave(self) -> None:
        """Nobody waits any more."""
        self.end(CancelledError())

    def completion(self) -> Completion:
        """How it ended. Raises EvaluationError if it was not decided, SteeringError if steering was lost."""
        if self.decision is None:
            raise EvaluationError("the batch ended without a decision: generation was not guarded")
        if self.decision.stops or self.chooser is None:
            return Completion(decision=self.decision, text="", new_tokens=0, steered_passes=0)
        followed = self.monitor.followed()[0] if self.monitor is not None else Followed()
        ids, text, finish = self.chooser.ending.reply(self.tokens[: followed.kept])
        return Completion(
            decision=self.decision,
            text=text,
            new_tokens=len(ids),
            steered_passes=min(self._steered() or followed.steered_passes, max(len(ids), 1)),
            reply_decision=followed.decision,
            turn=followed.turn,
            finish=finish,
        )

    def _steered(self) -> int:
        if self.steering is None:
            return 0
        count = self.steering.counts[0]
        # every token has a pass of its own: that of the token before
        if count < len(self.tokens):
            raise SteeringError("steering was decided, but not every forward pass was steered")
        return count
