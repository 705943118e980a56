"""One call of the batching engine, from its caller's side: it waits while the manager works."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any, Self

from guardrail.engines import Emit, Evaluator, Scored
from guardrail.engines.transformers.continuous.batches import Batches
from guardrail.engines.transformers.continuous.request import Request
from guardrail.engines.transformers.turn import Turn
from guardrail.types import Decision, Timing

LOOK_S = 0.2
"""How often a caller's thread looks whether anybody still waits, while its requests wait for others."""


class Once:
    """An evaluator that is asked once for each prompt, however many replies it gets."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._decisions: dict[int, Decision] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluator, name)

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        """The decision on a prompt (manager's thread), the same for all its replies."""
        if row not in self._decisions:
            self._decisions[row] = self._evaluator.decide(row, readings)
        return self._decisions[row]


class Call:
    """Requests that are asked for together. With an error of one, and when it is left, all end."""

    def __init__(self, batches: Batches, turn: Turn, emit: Emit) -> None:
        self._batches, self._turn, self._emit = batches, turn, emit
        self._told: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._requests: Sequence[Request] = ()
        self._scored = False

    def told(self, request: Request) -> None:
        """Something has happened to a request (manager's thread)."""
        self._told.put(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if all(request.over for request in self._requests):
            return
        self._batches.leave(self._requests)
        # nothing of this call is computed any more when its thread goes on, and perhaps ends the program
        with self._turn.lock:
            pass

    def steps(self, requests: Sequence[Request]) -> Iterator[None]:
        """Ask for these, and come back whenever something has happened, until all are over.

        Emits `Scored` once all are decided. Raises what ended one of them, and CancelledError.
        """
        self._requests = requests
        self._batches.submit(requests)
        over = False
        while not over:
            self._wait()
            # first: what is seen below is then all that there is
            over = all(request.over for request in requests)
            if error := next((request.error for request in requests if request.error), None):
                raise error
            self._score()
            # before all are decided nothing is handed out
            if self._scored:
                yield

    def _wait(self) -> None:
        while True:
            try:
                self._told.get(timeout=LOOK_S)
            except queue.Empty:
                if self._requests[0].evaluator.cancelled:
                    raise CancelledError from None
                self._batches.lost()
            else:
                return

    def _score(self) -> None:
        # of several replies to a prompt the last one counts: it is decided when all are
        decisions = {request.row: request.decision for request in self._requests}
        found = tuple(decision for decision in decisions.values() if decision is not None)
        if self._scored or any(request.decision is None for request in self._requests):
            return
        self._scored = True
        slowest = max(self._requests, key=lambda request: request.prefill_s)
        self._emit(Scored(found, Timing(guard=slowest.guard_s * 1e3, prefill=slowest.prefill_s * 1e3)))
