"""Leaving a request before it ends: by Ctrl-C, by closing a stream, by cancelling an asyncio task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from guardrail.files.forks import freed, renewed

P = ParamSpec("P")
T = TypeVar("T")


class Left(CancelledError):
    """The caller left, or the program ends. Any other CancelledError is a failure of whatever raised it."""


class Cancellation:
    """Whether the caller of a request has left. Any thread may cancel."""

    def __init__(self) -> None:
        self.cancelled = False
        self.ticket_id: str | None = None
        """The ticket that the request waits for, or did when its caller left."""
        self.audit_id: str | None = None
        """The audit record of the request, if it is a single one and has a record."""
        self._told: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Tell everyone who works for the caller, or waits in its place."""
        with self._lock:
            self.cancelled = True
            told, self._told = self._told, []
        for leave in told:
            leave()

    def tell(self, leave: Callable[[], None]) -> None:
        """Call `leave` once the caller leaves; at once if it has left."""
        with self._lock:
            if not self.cancelled:
                self._told.append(leave)
                return
        leave()

    def check(self) -> None:
        """Raises Left if the caller has left."""
        if self.cancelled:
            raise Left


_current: ContextVar[Cancellation] = ContextVar("guardrail_cancellation")


def current() -> Cancellation:
    """That of the asynchronous call for which this code runs; a new one if there is none."""
    return _current.get(None) or Cancellation()


class Threads:
    """Threads of asynchronous calls. A request may wait for a person for hours, and asyncio has few threads.

    As many at once as one guard lets wait for the model: more calls wait for a thread, and are not refused.
    """

    COUNT = 256

    def __init__(self) -> None:
        self._made: Executor | None = None
        self._lock = freed(threading.Lock())
        renewed(self)

    @property
    def executor(self) -> Executor:
        """Made with the first call."""
        with self._lock:
            self._made = self._made or ThreadPoolExecutor(self.COUNT, "guardrail-async")
            return self._made

    def forked(self) -> None:
        """The threads are the parent's."""
        self._made = None


_threads = Threads()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`; a task that is cancelled while it waits cancels the requests inside."""
    return await on(_threads.executor, partial(function, *args, **kwargs))


async def on(threads: Executor, work: Callable[[], T], cancellation: Cancellation | None = None) -> T:
    """As `in_thread`, on threads of the caller's own."""
    context, cancellation = copy_context(), cancellation or Cancellation()
    context.run(_current.set, cancellation)
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, partial(context.run, work))
    except asyncio.CancelledError:
        cancellation.cancel()
        raise
