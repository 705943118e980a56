"""One call of the engine from its caller's side: prompts go to vLLM together, and each is decided once.

The worker acts on the plan's verdict at once. What counts is the evaluator's, which also knows reviews and
time limits: if it is stricter, vLLM drops the request; if it is not what the worker did, it runs again.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Self
from uuid import uuid4

from guardrail.engines import Emit, Evaluator, Scored
from guardrail.errors import EvaluationError
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Timing
from guardrail_vllm.backend import Backend
from guardrail_vllm.item import Item, applied

LOOK_S = 0.2
"""How often a caller's thread looks whether anybody still waits."""


class Call:
    """Requests that are asked for together. With an error of one, and when it is left, all end."""

    def __init__(self, backend: Backend, plan: Plan, evaluator: Evaluator, emit: Emit) -> None:
        self._backend, self._plan, self._evaluator, self._emit = backend, plan, evaluator, emit
        self.name = uuid4().hex
        self._told: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self.items: list[Item] = []
        self.decisions: dict[int, Decision] = {}
        self._begun = self._scored = False

    def told(self, item: Item) -> None:
        """Something has happened to an item (on vLLM's loop)."""
        self._told.put(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        for item in self.items:
            if not item.over:
                item.leave()

    def steps(self, items: Sequence[Item]) -> Iterator[None]:
        """Ask for these, and come back whenever something has happened, until all are over.

        Emits `Scored` once all are decided; nothing comes back before. Raises what ended one of them, and
        CancelledError.
        """
        self.items = list(items)
        self._backend.revive()
        name = self._backend.know(self._plan)
        for item in self.items:
            item.start(self._backend, name)
        over = False
        while not over:
            self._wait()
            # first: what is seen below is then all that there is
            over = all(item.over for item in self.items)
            self._begin()
            self._decide(name)
            over = over and all(item.over for item in self.items)
            if self._scored:
                yield

    def _wait(self) -> None:
        while True:
            try:
                self._told.get(timeout=LOOK_S)
                return
            except queue.Empty:
                if self._evaluator.cancelled:
                    raise CancelledError from None

    def _begin(self) -> None:
        began = [(item.begun.at, item.submitted) for item in self.items if item.begun is not None]
        if began and not self._begun:
            self._begun = True
            self._evaluator.begun(max(0.0, min(at - submitted for at, submitted in began)))

    def _decide(self, name: str) -> None:
        for item in self.items:
            if item.error is not None:
                raise item.error
            if item.decided is None or self._scored:
                continue
            if item.row not in self.decisions:
                self.decisions[item.row] = self._decision(item)
        if self._scored or any(item.decided is None or item.row not in self.decisions for item in self.items):
            return
        for i, item in enumerate(self.items):
            self._settle(i, item, name)
        self._score()

    def _decision(self, item: Item) -> Decision:
        decided = item.decided
        assert decided is not None
        if decided.error is not None:
            raise EvaluationError(decided.error)
        decision = self._evaluator.decide(item.row, decided.readings)
        for again in item.rechecked:
            decision = self._evaluator.recheck(item.row, decision, again.readings, again.layer)
        return decision

    def _settle(self, i: int, item: Item, name: str) -> None:
        """See to it that vLLM does what was decided."""
        decision, decided = self.decisions[item.row], item.decided
        assert decided is not None
        done = applied(self._plan, decided)
        steering = [one.policy for one in decision.steering]
        if decision.stops or item.asked.check:
            item.leave()
        elif done.stops or steering != decided.steering:
            item.leave()
            self.items[i] = item.forced(decision)
            self.items[i].start(self._backend, name)

    def _score(self) -> None:
        self._scored = True
        decided = [item.decided for item in self.items if item.decided is not None]
        slowest = max(decided, key=lambda one: one.at - one.began, default=None)
        timing = Timing()
        if slowest is not None:
            seconds = slowest.at - slowest.began
            timing = Timing(guard=slowest.guard_s * 1e3, prefill=max(0.0, seconds - slowest.guard_s) * 1e3)
        self._emit(Scored(tuple(self.decisions[row] for row in sorted(self.decisions)), timing))
