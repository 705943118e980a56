"""Stopwatches, which measure how long a call took and when each of its tokens arrived.

A stopwatch runs a call and returns its laps. During the call, `mark` records the time; `token_marks` is a
stopping criterion for `generate` that never stops and marks every token, for guarded and bare calls alike.
On CUDA the marks are events, so the only wait for the device is one synchronisation after the call is queued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any, Protocol, TypeAlias

Call: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Laps:
    """Milliseconds from the start of a call to its end and to each mark."""

    total: float
    marks: tuple[float, ...] = ()


class Stopwatch(Protocol):
    """Times one call at a time."""

    def __call__(self, call: Call) -> Laps: ...
    def mark(self) -> None: ...


class HostStopwatch:
    """For work that is complete when the call returns. now: a clock in seconds."""

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now, self._marks = now, list[float]()

    def mark(self) -> None:
        """Record the time."""
        self._marks.append(self._now())

    def __call__(self, call: Call) -> Laps:
        """Run the call."""
        self._marks = []
        start = self._now()
        call()
        end = self._now()
        return Laps((end - start) * 1e3, tuple((mark - start) * 1e3 for mark in self._marks))


class CudaStopwatch:
    """Measures from an idle device to the end of all queued work, including host time."""

    def __init__(self) -> None:
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Queue an event."""
        self._marks.append(_event())

    def __call__(self, call: Call) -> Laps:
        """Run the call and wait for its last event."""
        import torch

        self._marks = []
        torch.cuda.synchronize()
        start = _event()
        call()
        end = _event()
        end.synchronize()
        return Laps(start.elapsed_time(end), tuple(start.elapsed_time(mark) for mark in self._marks))


def _event() -> Any:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def wall_clock() -> Stopwatch:
    """The time that a user waits."""
    return HostStopwatch(perf_counter)


def cpu_clock() -> Stopwatch:
    """The processor time of this process, without the delays of a busy machine."""
    return HostStopwatch(process_time)


def clock_of(device: str) -> tuple[str, Stopwatch]:
    """(name, stopwatch) for a device."""
    return ("events", CudaStopwatch()) if device.startswith("cuda") else ("wall", wall_clock())


def token_marks(stopwatch: Stopwatch) -> Any:
    """A stopping criterion that marks every token and never stops."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Marks(StoppingCriteria):
        """One mark for each new token of the batch."""

        def __init__(self) -> None:
            self._no: Any = None

        def __call__(self, input_ids: Any, scores: Any, **rest: Any) -> Any:
            stopwatch.mark()
            if self._no is None or len(self._no) != len(input_ids):
                self._no = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
            return self._no

    return StoppingCriteriaList([Marks()])
