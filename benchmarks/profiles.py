"""Evidence from torch.profiler: the extra work of a guarded call compared with a bare one.

Of decoding, the operators in their order, which are to be the bare model's own. Of one prefill, the operators
that the guard adds, kernels, the time in which the device waits, and what makes the host wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.lab import Lab
from guardrail.bench.cases import greedy, inputs
from guardrail.bench.plans import allowing
from guardrail.bench.results import Point

GAP_US = 10.0
DECODED = 4
"""Tokens that are profiled, after two that are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One profiled stretch. Times in microseconds; without a device there are no kernels."""

    operators: int
    launches: int
    host_waits: dict[str, int]
    kernels: int
    busy_us: float
    span_us: float
    gaps: int
    """Stretches of more than 10 us in which the device had nothing to do."""
    gaps_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Guarded against bare. difference: calls of each operator that the guard adds (or saves, negative)."""

    guarded: Trace
    bare: Trace
    same_operators: bool
    """The same operators in the same order."""
    difference: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the profiler saw at one point."""

    shape: str
    point: Point
    prefill: Compared
    decoding: Compared
    decoded_tokens: int

    def note(self) -> str:
        """One line for the report."""
        decoding, prefill = self.decoding, self.prefill
        same = "equals" if decoding.same_operators else "does NOT equal"
        return (
            f"{self.shape}, {self.point}, profiler: the operator list of {self.decoded_tokens} guarded "
            f"tokens {same} the bare model's ({decoding.guarded.operators} and {decoding.bare.operators}); "
            f"a guarded prefill adds {prefill.guarded.operators - prefill.bare.operators} operators"
        )


def evidence(lab: Lab, point: Point, trace: Path) -> Evidence:
    """Profile decoding and one prefill, guarded and bare; the guarded prefill's trace goes to a file."""
    plan = allowing(int(lab.shape.settings["hidden_size"]), lab.shape.read, point.policies)
    batch = inputs(lab.bare, point.prompt, point.batch)
    one = greedy(batch, 1)
    calls = [lab.guarded(plan, one), lab.plain(one)]
    prefills = [_profiled(call, lab.session.device) for call in calls]
    prefills[0].export_chrome_trace(str(trace))
    windows = [_decoding(lab, plan, batch, guarded) for guarded in (True, False)]
    return Evidence(
        shape=lab.shape.name,
        point=replace(point),
        prefill=compared(*(_events(found) for found in prefills)),
        decoding=compared(*(_events(found) for found in windows)),
        decoded_tokens=DECODED,
    )


# --- profiling ----------------------------------------------------------------------------------------


def _profiled(call: Callable[[], object], device: str) -> Any:
    call()
    with profile(activities=_activities(device)) as found:
        call()
        _finish(device)
    return found


def _decoding(lab: Lab, plan: Any, batch: dict[str, Any], guarded: bool) -> Any:
    """A profile of tokens in the middle of a reply."""
    window = _Window(lab.session.device)
    arguments = {**greedy(batch, DECODED + 3), "stopping_criteria": window.criteria()}
    (lab.guarded(plan, arguments) if guarded else lab.plain(arguments))()
    return window.profile


class _Window:
    """Opens the profiler after the second token and closes it `DECODED` tokens later."""

    def __init__(self, device: str) -> None:
        self.device, self.seen = device, 0
        self.profile: Any = profile(activities=_activities(device))

    def criteria(self) -> Any:
        from transformers import StoppingCriteria, StoppingCriteriaList

        window = self

        class Watch(StoppingCriteria):
            """Stops nothing."""

            def __call__(self, input_ids: Any, scores: Any, **rest: Any) -> Any:
                no = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
                window.token()
                return no

        return StoppingCriteriaList([Watch()])

    def token(self) -> None:
        self.seen += 1
        if self.seen == 2:
            self.profile.start()
        elif self.seen == 2 + DECODED:
            _finish(self.device)
            self.profile.stop()


def _activities(device: str) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# --- what was seen ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a profile; times in microseconds."""

    name: str
    on_device: bool
    start: float
    end: float


def _events(found: Any) -> list[Event]:
    made = [
        Event(e.name, e.device_type != torch.autograd.DeviceType.CPU, e.time_range.start, e.time_range.end)
        for e in found.events()
    ]
    return sorted(made, key=lambda event: event.start)


def compared(guarded: Sequence[Event], bare: Sequence[Event]) -> Compared:
    """Both sides, and what is different."""
    ours, theirs = operators(guarded), operators(bare)
    difference = Counter(ours)
    difference.subtract(Counter(theirs))
    return Compared(
        guarded=traced(guarded),
        bare=traced(bare),
        same_operators=ours == theirs,
        difference={name: count for name, count in sorted(difference.items()) if count},
    )


def operators(events: Sequence[Event]) -> list[str]:
    """The names of what PyTorch was asked to compute, in order."""
    return [event.name for event in events if not event.on_device and "::" in event.name]


def traced(events: Sequence[Event]) -> Trace:
    """What one stretch amounts to."""
    host = [event.name for event in events if not event.on_device]
    kernels = [event for event in events if event.on_device]
    gaps = list(_gaps(kernels))
    span = max((e.end for e in kernels), default=0.0) - min((e.start for e in kernels), default=0.0)
    waits = Counter(name for name in host if "Synchronize" in name)
    waits.update(e.name for e in kernels if "DtoH" in e.name)
    return Trace(
        operators=len(operators(events)),
        launches=sum("Launch" in name for name in host),
        host_waits=dict(waits),
        kernels=len(kernels),
        busy_us=span - sum(gaps),
        span_us=span,
        gaps=sum(gap > GAP_US for gap in gaps),
        gaps_us=sum(gap for gap in gaps if gap > GAP_US),
    )


def _gaps(kernels: Sequence[Event]) -> Iterator[float]:
    """Idle time between kernels, which may overlap."""
    end = kernels[0].end if kernels else 0.0
    for kernel in kernels[1:]:
        if kernel.start > end:
            yield kernel.start - end
        end = max(end, kernel.end)


@contextmanager
def quiet() -> Iterator[None]:
    """The profiler warns about its own clock; a dry run on the CPU need not."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
