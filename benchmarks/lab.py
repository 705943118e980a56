"""A shape on a device: the guarded model, its bare twin and the session's clock."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from benchmarks.cases import ignore
from guardrail.bench.cases import endless, greedy, inputs, plainly
from guardrail.bench.clocks import Call, Stopwatch
from guardrail.bench.memory import peak_mib
from guardrail.bench.pairs import Recorded, Side, record
from guardrail.bench.plans import PlanEvaluator
from guardrail.bench.results import Point, Two
from guardrail.bench.shapes import Shape, random_model
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.policy.plan import Plan
from guardrail.testing import tiny_tokenizer

LEAST_PAIRS, WARM_UP = 12, 3


class OutOfTime(Exception):
    """The next measurement would not end in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """How this run measures, and when it has to be over (a moment of `perf_counter`)."""

    device: str
    dtype: str
    clock: Stopwatch
    deadline: float
    pairs: int
    row_seconds: float
    """No job but those that must be shown may take longer; it makes fewer pairs, but at least 12."""

    def rounds(self, sides: list[Side], must: bool) -> int:
        """How many rounds to make. Raises OutOfTime before a measurement that would not end in time."""
        for side in sides:
            side.call()
        seconds = sum(self.clock(side.call).total for side in sides) / 1e3
        left = self.deadline - perf_counter()
        wanted = self.pairs
        if not must:
            wanted = min(wanted, max(LEAST_PAIRS, int(self.row_seconds / seconds)))
        if seconds * (wanted + WARM_UP) > left:
            raise OutOfTime
        return wanted


@dataclass(kw_only=True)
class Lab:
    """One couple of models. The engine is on while `engine` is used, and off after `close`."""

    shape: Shape
    session: Session
    model: Any = field(init=False)
    bare: Any = field(init=False)
    _engine: TransformersEngine | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.model, self.bare = self.another(), self.another()

    def another(self) -> Any:
        """One more model with the same weights, on the device."""
        return endless(random_model(self.shape, self.session.device, self.session.dtype))

    @property
    def engine(self) -> TransformersEngine:
        """Put on the guarded model, if it is not."""
        if self._engine is None:
            self._engine = engine_of(self.model)
        return self._engine

    def put_on(self, **options: Any) -> None:
        """Put another engine on than the default one, until `close`."""
        self.close()
        self._engine = engine_of(self.model, **options)

    def close(self) -> None:
        """Take the engine off."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def arguments(self, point: Point, tokens: int) -> dict[str, Any]:
        """Of `generate`, for guarded and bare calls alike."""
        return greedy(inputs(self.bare, point.prompt, point.batch), tokens, self.session.clock)

    def guarded(self, plan: Plan, arguments: dict[str, Any]) -> Callable[[], Any]:
        """A guarded reply."""
        return guarded_by(self.engine, plan, arguments)

    def plain(self, arguments: dict[str, Any]) -> Callable[[], Any]:
        """A bare reply."""
        return plainly(self.bare, arguments)

    def recorded(self, guarded: Call, bare: Call, *others: Call, must: bool = False) -> Recorded:
        """Alternating rounds, as many as there is time for. Raises OutOfTime."""
        sides = [Side(call) for call in (guarded, bare, *others)]
        return record(sides, self.session.rounds(sides, must), WARM_UP, self.session.clock)

    def peak(self, guarded: Call, bare: Call) -> Two | None:
        """Memory at its highest during one call of each."""
        found = [peak_mib(call, self.session.device) for call in (guarded, bare)]
        return None if None in found else Two(guarded=found[0] or 0.0, bare=found[1] or 0.0)


def engine_of(model: Any, **options: Any) -> TransformersEngine:
    """An engine on a model of random weights."""
    return TransformersEngine(model, tiny_tokenizer(), "builtin:plain", **options)


def guarded_by(engine: TransformersEngine, plan: Plan, arguments: dict[str, Any]) -> Callable[[], Any]:
    """`engine.generate` under a plan."""
    evaluator = PlanEvaluator(plan)
    return lambda: engine.generate(plan, evaluator, ignore, arguments)


@contextmanager
def lab(shape: Shape, session: Session) -> Iterator[Lab]:
    """A lab whose memory is given back at the end."""
    made: Lab | None = None
    try:
        made = Lab(shape=shape, session=session)
        yield made
    finally:
        if made is not None:
            made.close()
            made.model = made.bare = None
        free_memory(session.device)


def free_memory(device: str) -> None:
    """Engine and model refer to one another, so that they go only when they are collected."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
