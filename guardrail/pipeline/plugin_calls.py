"""Calls of plugins that may take too long, each plugin on a thread of its own.

Nobody can stop a thread. So while a call hangs, later calls of the same plugin fail, and nothing else does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from guardrail.errors import GuardClosed
from guardrail.files.forks import freed
from guardrail.pipeline.worker import Worker

T = TypeVar("T")

CLOSE_S = 1.0
"""How long closing waits for a call that hangs."""
SHORT_S = 0.25
"""How long a call waits while an earlier one of the same plugin hangs: otherwise all would wait as long."""


class PluginCalls:
    """A worker for each name, started with its first call. Any thread may call."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._lock = freed(threading.Lock())
        self._closed = False

    def call(self, name: str, function: Callable[[], T], timeout_s: float) -> T:
        """What the function returns. Raises what it raises, TimeoutError, QueueFull and GuardClosed."""
        worker = self._worker(name)
        limit_s = max(0.0, min(timeout_s, SHORT_S) if worker.hangs else timeout_s)
        job = worker.submit(lambda _: function())
        try:
            return job.result(limit_s)
        except BaseException as error:
            job.cancel(timed_out=isinstance(error, TimeoutError))
            raise

    def _worker(self, name: str) -> Worker:
        with self._lock:
            if self._closed:
                raise GuardClosed("the guard is closed")
            if name not in self._workers:
                self._workers[name] = Worker(name=f"guardrail-{name}")
            return self._workers[name]

    def close(self) -> None:
        """End the threads that are not hanging."""
        with self._lock:
            self._closed = True
        for worker in self._workers.values():
            worker.close(CLOSE_S)
