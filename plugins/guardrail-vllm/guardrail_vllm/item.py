"""One reply that vLLM is asked for. It runs on vLLM's loop, and tells the caller's thread what happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, TypeAlias

from guardrail.errors import EvaluationError, outline
from guardrail.policy.plan import Plan
from guardrail.types import Decision
from guardrail_vllm.attempt import Attempt
from guardrail_vllm.backend import DEAD, Backend
from guardrail_vllm.plans import read
from guardrail_vllm.worker.asked import Asked
from guardrail_vllm.worker.reports import Begun, Decided, Ended, Rechecked

Told: TypeAlias = "Callable[[Item], None]"
"""Told that something has happened to an item, on the loop."""


class Item:
    """A request of vLLM for one reply to the prompt of `row`. What it holds is written on the loop alone.

    `parameters` are vLLM's. `expects`: whether the reply is followed, so that workers tell how it went.
    """

    def __init__(
        self,
        row: int,
        ids: tuple[int, ...],
        parameters: Any,
        asked: Asked,
        told: Told,
        expects: bool = False,
    ) -> None:
        self.row, self.ids, self.asked = row, ids, asked
        self._parameters, self._told, self._expects = parameters, told, expects
        self.submitted = perf_counter()
        self.begun: Begun | None = None
        self.decided: Decided | None = None
        self.rechecked: Sequence[Rechecked] = ()
        self.tokens: list[int] = []
        self.logprobs: list[Mapping[int, Any]] = []
        self.ended: Ended | None = None
        self.error: Exception | None = None
        self.over = False
        self._future: Any = None

    def forced(self, decision: Decision) -> Item:
        """The same once more, with a decision that is made already."""
        policies = tuple(one.policy for one in decision.steering)
        asked = replace(self.asked, forced=policies, group=None)
        return Item(self.row, self.ids, self._parameters, asked, self._told, self._expects)

    def start(self, backend: Backend, plan: str) -> None:
        """Ask for it, from the caller's thread."""
        self._future = backend.begin(self._run(backend, plan))

    def leave(self) -> None:
        """Nobody wants it any more, from the caller's thread: vLLM drops it."""
        if self._future is not None:
            self._future.cancel()

    async def _run(self, backend: Backend, plan: str) -> None:
        try:
            arguments = self._arguments(plan, backend.verdicts.address)
            attempt = Attempt(backend.verdicts, partial(self._generate, backend), arguments)
            attempt.word.begun.add_done_callback(self._begin)
            try:
                await self._follow(attempt)
            finally:
                await attempt.leave()
        except Exception as error:
            self.error = EvaluationError(DEAD) if backend.dead else _known(error)
        finally:
            self.over = True
            self._told(self)

    def _arguments(self, plan: str, to: str) -> Callable[[str], dict[str, Any]]:
        return lambda key: replace(self.asked, key=key, to=to).arguments(plan)

    def _generate(self, backend: Backend, key: str, extra: dict[str, Any]) -> Any:
        parameters = self._parameters.clone()
        parameters.extra_args = extra
        return backend.generate(self.ids, parameters, key)

    def _begin(self, begun: asyncio.Future[Begun]) -> None:
        if not begun.cancelled():
            self.begun = begun.result()
            self._told(self)

    async def _follow(self, attempt: Attempt) -> None:
        self.decided = await attempt.decided(inf)
        self.rechecked = tuple(attempt.word.rechecked)
        self._told(self)
        if self.asked.check or self.decided is None or applied(self.asked.plan, self.decided).stops:
            return
        async for output in attempt.outputs():
            self._take(output.outputs[0])
        if self._expects or self.decided.steering:
            self.ended = await attempt.ended()

    def _take(self, output: Any) -> None:
        self.logprobs += output.logprobs or ()
        # the caller's thread counts the tokens
        self.tokens += output.token_ids
        self._told(self)


def _known(error: Exception) -> Exception:
    return error if isinstance(error, EvaluationError) else EvaluationError(f"vLLM refused: {outline(error)}")


def applied(plan: Plan, decided: Decided) -> Decision:
    """What the worker did, as a decision."""
    rules = [plan.rule(policy) for policy in decided.steering]
    steering = tuple(rule.steering for rule in rules if rule is not None and rule.steering)
    return Decision(status="evaluated", action=decided.action, steering=steering)


def observed(ended: Ended) -> Any:
    """What the worker observed of a reply; None if it observed nothing."""
    return None if ended.observed is None else read(ended.observed, object)
