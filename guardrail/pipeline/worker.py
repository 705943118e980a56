"""The worker threads of a model, behind a bounded queue. Knows nothing about models or policies.

Engines are called from one thread at a time, so requests take turns, or from several if they batch.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

from guardrail.errors import EvaluationError, GuardClosed, QueueFull
from guardrail.files.forks import freed, renewed
from guardrail.pipeline.cancellation import Cancellation
from guardrail.pipeline.job import AnyJob, Job, inside

T = TypeVar("T")
E = TypeVar("E")

FORKED = "the process was forked during a request; fork while the guard is idle, or make it afterwards"
EXIT_S = 10.0
"""How long the end of the interpreter waits for the forward pass that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker does at the moment. `busy_s`: how long it has run what it runs, None if it is idle.

    `alive` is False if it takes no more work: it was closed, or its thread has ended.
    """

    waiting: int
    capacity: int
    busy_s: float | None
    alive: bool


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
        if inside(self._running.copy()):
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
