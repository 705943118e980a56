"""Calls of plugins that may take too long, each plugin on a thread of its own.

Nobody can stop a thread. So a call that hangs holds up later calls of the same plugin, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from guardrail.pipeline.worker import Worker

T = TypeVar("T")

CLOSE_S = 1.0
"""How long closing waits for a call that hangs."""


class PluginCalls:
    """A worker for each name, started with its first call. Called from one thread at a time."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def call(self, name: str, function: Callable[[], T], timeout_s: float) -> T:
        """What the function returns. Raises what it raises, TimeoutError, and QueueFull if it hung before."""
        if name not in self._workers:
            self._workers[name] = Worker(name=f"guardrail-{name}")
        return self._workers[name].call(function, max(0.0, timeout_s))

    def close(self) -> None:
        """End the threads that are not hanging."""
        for worker in self._workers.values():
            worker.close(CLOSE_S)
