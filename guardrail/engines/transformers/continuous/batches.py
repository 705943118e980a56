"""The requests under way in one manager, from the threads of their callers to the manager's and back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from guardrail.engines.transformers.continuous.manager import Manager, Run
from guardrail.engines.transformers.continuous.request import Request
from guardrail.engines.transformers.continuous.room import Room
from guardrail.engines.transformers.continuous.rows import Row
from guardrail.errors import EvaluationError
from guardrail.files.forks import freed, renewed

Passing = Callable[[dict[str, Any], Sequence[Any], dict[str, Request]], tuple[Tensor, list[Row]]]


class Batches:
    """Takes requests in, while the cache has room for them, until each is over. Thread-safe.

    `made` makes a manager; another is made if one has failed, and in a forked process.
    """

    def __init__(
        self, made: Callable[[Run, Callable[[str, EvaluationError], None]], Manager], passing: Passing
    ) -> None:
        self._make, self._passing = made, passing
        self._requests: dict[str, Request] = {}
        self._lock = freed(threading.RLock())
        self._open()
        renewed(self)

    def _open(self) -> None:
        self.manager = self._make(self._run, self._failed)
        self._started = False
        self._room = Room(self.manager.tokens, self.manager.page, self._enter)

    @property
    def requests(self) -> list[Request]:
        """Those under way."""
        with self._lock:
            return list(self._requests.values())

    def submit(self, requests: Sequence[Request]) -> None:
        """Take requests in. Raises EvaluationError if there is no manager that could run them."""
        with self._lock:
            if not self._started or not self.manager.runs:
                self._start()
            for request in requests:
                self._requests[request.id] = request
                self._room.ask(request)

    def _start(self) -> None:
        if self._started:
            # it has failed, and with it all that it held
            self._open()
        self.manager.start()
        self._started = True

    def _enter(self, request: Request) -> None:
        try:
            self.manager.add(request.id, request.prompt.ids, request.longest)
        except Exception as error:
            request.end(error)

    def leave(self, requests: Sequence[Request]) -> None:
        """Nobody waits for these any more."""
        for request in requests:
            request.leave()
        self._forget(requests)

    def lost(self) -> None:
        """End what is under way if the manager has died."""
        if self._started and not self.manager.runs:
            for request in self.requests:
                request.end(EvaluationError("continuous batching has stopped"))

    def _run(self, batch: dict[str, Any], scheduled: Sequence[Any]) -> Tensor:
        logits, rows = self._passing(batch, scheduled, self._requests)
        self._forget([row.request for row in rows if row.request.over])
        return logits

    def _failed(self, name: str, error: EvaluationError) -> None:
        request = self._requests.get(name)
        if request is not None:
            request.end(error)
            self._forget([request])

    def _forget(self, requests: Sequence[Request]) -> None:
        with self._lock:
            for request in requests:
                if self._requests.pop(request.id, None) is not None:
                    self.manager.drop(request.id)
                    self._room.give_back(request)

    def forked(self) -> None:
        """The thread is the parent's, and so is what was under way."""
        self._requests.clear()
        # as if it had failed: the first request makes a new manager
        self._started = True

    def close(self) -> None:
        """End the thread after the pass under way."""
        for request in self.requests:
            request.end(EvaluationError("the guard was closed"))
        self.manager.stop()
