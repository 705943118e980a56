"""Work for a worker's thread: it sends events to its caller while it runs, and ends with a result."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import nullcontext
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeAlias, TypeVar

from guardrail.pipeline.cancellation import Cancellation, Left
from guardrail.pipeline.thread_state import ThreadState

T = TypeVar("T")
E = TypeVar("E")

_inside: ContextVar[tuple[object, ...]] = ContextVar("guardrail_jobs")
"""The marks of the jobs for which this code runs, also in threads that a plugin starts in this context."""


@dataclass(frozen=True, slots=True)
class _Ended:
    error: Exception | None


class Job(Generic[E, T]):
    """Work that sends events while it runs and ends with a result. The caller reads, the worker writes.

    `begins`: whether it has begun as soon as it runs; otherwise the work says so itself, with `begin`.
    """

    def __init__(
        self, run: Callable[[Job[E, T]], T], cancellation: Cancellation | None = None, begins: bool = True
    ) -> None:
        self._run, self._begins = run, begins
        # the work sees the caller's context variables and torch state, not those of the worker's thread
        self._context: Context = copy_context()
        self._state = ThreadState.here()
        # not the job itself, which would then be kept until the garbage collector comes
        self.mark = object()
        self._context.run(_inside.set, (*_inside.get(()), self.mark))
        self._events: queue.SimpleQueue[E | _Ended] = queue.SimpleQueue()
        self._started = threading.Event()
        self._cancelled, self._timed_out = threading.Event(), threading.Event()
        self._result: list[T] = []
        self.over = False
        """Whether the worker has run it to its end."""
        self.submitted = perf_counter()
        self.started = 0.0
        if cancellation is not None:
            cancellation.tell(self.cancel)

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits."""
        return self._cancelled.is_set()

    @property
    def succeeded(self) -> bool:
        """Whether there is a result."""
        return bool(self._result)

    @property
    def timed_out(self) -> bool:
        """Whether the caller stopped waiting because the time was up."""
        return self._timed_out.is_set()

    def cancel(self, timed_out: bool = False) -> None:
        """The caller stops waiting, at once; the worker notices before its next forward pass."""
        # in this order: whoever sees `cancelled` has to know why
        if timed_out:
            self._timed_out.set()
        self._cancelled.set()
        self.refuse(Left())

    def emit(self, event: E) -> None:
        """Send an event (worker's side). Raises CancelledError if the job was cancelled."""
        # generation cannot be interrupted, but raising here leaves it
        if self.cancelled:
            raise CancelledError
        self._events.put(event)

    def begin(self, waited_s: float = 0.0) -> None:
        """The work has begun (worker's side), after so many seconds of waiting since it runs."""
        if not self._started.is_set():
            self.started += waited_s
            self._started.set()

    def wait_until_started(self, timeout: float | None = None) -> bool:
        """Block until the work has begun; False if it has not in time."""
        return self._started.wait(timeout)

    def next_event(self, timeout: float | None = None) -> E | None:
        """The next event, None at the end. Raises what the work raised, and TimeoutError."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if not isinstance(event, _Ended):
            return event
        self._events.put(event)  # for those that ask again after the end
        if event.error is not None:
            raise event.error
        return None

    def events(self) -> Iterator[E]:
        """The events that are left."""
        while (event := self.next_event()) is not None:
            yield event

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end. Raises what the work raised, and TimeoutError after so long without an event."""
        while self.next_event(timeout) is not None:
            pass
        return self._result[0]

    def execute(self) -> None:
        """Run on a worker's thread."""
        self.started = perf_counter()
        if self._begins:
            self.begin()
        try:
            # the caller may have gone while the job was in the queue
            if self.cancelled:
                raise CancelledError
            with self._state.entered() if self._state else nullcontext():
                self._result.append(self._context.run(self._run, self))
            self._conclude(None)
        except Exception as error:
            self._conclude(error)
        except BaseException as error:
            # the caller waits for an end, and the worker has to live on; and SystemExit, raised again in the
            # caller's thread, would end the caller's program
            failure = RuntimeError(f"{type(error).__name__} was raised on the guard's thread")
            failure.__cause__ = error
            self._conclude(failure)

    def _conclude(self, error: Exception | None) -> None:
        # before the caller knows of it, who may fork the process at once
        self.over = True
        self._end(error)

    def refuse(self, error: Exception) -> None:
        """End for the caller, whether it runs or not."""
        self.started = self.started or perf_counter()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        # a caller waits for the start before it waits for events
        self._started.set()
        self._events.put(_Ended(error))


AnyJob: TypeAlias = "Job[object, object]"


def inside(jobs: Iterable[AnyJob]) -> bool:
    """Whether this code runs for one of the jobs."""
    marks = _inside.get(())
    return bool(marks) and any(job.mark in marks for job in jobs)
