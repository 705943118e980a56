"""The worker threads of a model, behind a bounded queue. Knows nothing about models or policies.

Engines are called from one thread at a time, so requests take turns, or from several if they batch.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import nullcontext
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeAlias, TypeVar

from guardrail.errors import EvaluationError, GuardClosed, QueueFull
from guardrail.files.forks import freed, renewed
from guardrail.pipeline.cancellation import Cancellation, Left
from guardrail.pipeline.thread_state import ThreadState

T = TypeVar("T")
E = TypeVar("E")

FORKED = "the process was forked during a request; fork while the guard is idle, or make it afterwards"
EXIT_S = 10.0
"""How long the end of the interpreter waits for the forward pass that runs."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker does at the moment. `busy_s`: how long it has run what it runs, None if it is idle.

    `alive` is False if it takes no more work: it was closed, or its thread has ended.
    """

    waiting: int
    capacity: int
    busy_s: float | None
    alive: bool


AnyJob: TypeAlias = "Job[object, object]"


@dataclass(eq=False)
class Worker:
    """Runs jobs in the order in which they came, one after another on one thread, or `threads` at a time.

    `capacity` jobs may wait, each no longer than `patience_s`; then QueueFull. With several threads a job
    says itself when it begins (`Job.begin`), because it may still wait for others inside its engine.
    """

    capacity: int = 256
    patience_s: float = 300.0
    name: str = "guardrail-worker"
    threads: int = 1
    _queue: queue.Queue[AnyJob | None] = field(init=False, repr=False)
    _pool: list[threading.Thread] = field(default_factory=list[threading.Thread], init=False, repr=False)
    _idle: int = field(default=0, init=False)
    """Threads that wait for a job, less the jobs that wait for a thread."""
    _running: set[AnyJob] = field(default_factory=set["AnyJob"], init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _closed: str | None = field(default=None, init=False)
    """Why no more work is taken."""

    def __post_init__(self) -> None:
        self._queue = queue.Queue(self.capacity)
        freed(self._lock)
        renewed(self)

    @property
    def load(self) -> Load:
        """How busy it is. Takes no lock."""
        now = perf_counter()
        return Load(
            waiting=self._queue.qsize(),
            capacity=self.capacity,
            busy_s=max((now - (job.started or now) for job in self._running.copy()), default=None),
            alive=self._closed is None and all(thread.is_alive() for thread in self._pool.copy()),
        )

    @property
    def hangs(self) -> bool:
        """Whether it runs a job whose caller has given up, because the time was up."""
        return any(job.timed_out for job in self._running.copy())

    def submit(self, run: Callable[[Job[E, T]], T], cancellation: Cancellation | None = None) -> Job[E, T]:
        """Queue work, which `cancellation` cancels. Raises QueueFull and GuardClosed."""
        # it would wait for a job that can only start after the one that waits
        inside = _inside.get(())
        if inside and any(job.mark in inside for job in self._running.copy()):
            raise EvaluationError("the guard was called from inside one of its own requests")
        job = Job(run, cancellation, begins=self.threads == 1)
        with self._lock:
            if self._closed is not None:
                raise GuardClosed(self._closed)
            self._start()
            try:
                self._queue.put_nowait(job)  # pyright: ignore[reportArgumentType]
            except queue.Full:
                text = f"{self.capacity} requests are waiting for the model; try again later"
                raise QueueFull(text) from None
            self._idle -= 1
        return job

    def call(self, function: Callable[[], T], timeout_s: float | None = None) -> T:
        """Run a function on the worker and wait for it. Raises TimeoutError; the function may still run."""
        job = self.submit(lambda _: function())
        try:
            return job.result(timeout_s)
        except BaseException:
            job.cancel()
            raise

    def close(self, timeout_s: float | None = None) -> None:
        """Finish what runs, refuse what waits, end the threads, unless what runs takes longer."""
        self._end()
        self._join(timeout_s)
        atexit.unregister(self._leave)

    def _end(self) -> None:
        """Refuse what waits, and let the threads end after what runs."""
        # under the lock, so that no job gets into the queue behind the end and is never run
        with self._lock:
            self._closed = self._closed or "the guard is closed"
            while not self._queue.empty():
                if (job := self._queue.get_nowait()) is not None:
                    job.refuse(GuardClosed("the guard was closed"))
            # each thread passes it on to the next
            self._queue.put(None)

    def _join(self, timeout_s: float | None) -> None:
        end = None if timeout_s is None else perf_counter() + timeout_s
        for thread in self._pool:
            if thread is not threading.current_thread():
                thread.join(None if end is None else max(0.0, end - perf_counter()))

    def _leave(self) -> None:
        """End with the interpreter, which a thread in the middle of a forward pass would abort."""
        self._end()
        for job in self._running.copy():
            job.cancel()
        self._join(EXIT_S)

    def forked(self) -> None:
        """The threads are the parent's, and so is what waits. New threads start with new requests."""
        self._queue, self._pool, self._idle = queue.Queue(self.capacity), [], 0
        if any(not job.over for job in self._running):
            # the model was copied in the middle of a pass, with what looks into it
            self._closed = FORKED
        self._running.clear()

    def _start(self) -> None:
        if self._idle > 0 or len(self._pool) == self.threads:
            return
        thread = threading.Thread(target=self._loop, name=self.name, daemon=True)
        # a thread that cannot start now may be able to when the next request comes
        thread.start()
        self._pool.append(thread)
        self._idle += 1
        if len(self._pool) == 1:
            atexit.register(self._leave)

    def _loop(self) -> None:
        while (job := self._queue.get()) is not None:
            self._running.add(job)
            job.execute()
            self._running.discard(job)
            with self._lock:
                self._idle += 1
        self._queue.put(None)
