"""The jobs of the GPU suite, most important first: what is measured on which shape, with which goals.

One factor at a time around (7B, prompt 512, batch 1, 8 policies on 3 layers). What must be shown comes first,
then the sweeps, then the other shapes, so that a run that is out of time has the rows that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from benchmarks import jobs
from benchmarks.lab import Lab
from benchmarks.subjects import SLACK, UNCHANGED, at_most
from guardrail.bench import shapes
from guardrail.bench.goals import Goal
from guardrail.bench.results import Point, Row, not_measured
from guardrail.bench.second_model import SECONDS, Second
from guardrail.bench.shapes import Shape

Goals = dict[str, Goal]
Measure = Callable[[Lab, "Job"], Iterator[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement, which gives one row or several. goals: by metric."""

    case: str
    measure: Measure
    metrics: tuple[str, ...]
    point: Point
    tokens: int
    goals: Goals = field(default_factory=dict[str, Goal])
    second: Second | None = None
    must: bool = False
    shape: Shape = shapes.QWEN_7B

    def name(self, metric: str) -> str:
        """The row's name."""
        return f"{self.shape.name}: {self.case}: {metric} ({self.point})"

    def missing(self, why: str) -> list[Row]:
        """Its rows, without numbers."""
        return [not_measured(self.name(metric), self.goals.get(metric), why) for metric in self.metrics]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large everything is: the real suite, or the dry run."""

    main: Shape
    others: tuple[Shape, ...]
    base: Point
    prompts: tuple[int, ...]
    batches: tuple[int, ...]
    policies: tuple[int, ...]
    many: int
    crowd: int
    """The batch whose throughput must be shown."""
    tokens: int
    seconds: tuple[Second, ...]


REAL = Scale(
    main=shapes.QWEN_7B,
    others=(shapes.QWEN_14B, shapes.LLAMA_8B, shapes.QWEN_05B),
    base=Point(512, 1, 8),
    prompts=(128, 1024, 2048, 4096, 8192),
    batches=(4, 16, 64),
    policies=(1, 32, 256),
    many=256,
    crowd=32,
    tokens=16,
    seconds=tuple(SECONDS.values()),
)
TINY = Scale(
    main=shapes.TINY,
    others=(shapes.TINY_LLAMA,),
    base=Point(32, 1, 8),
    prompts=(8, 64),
    batches=(2,),
    policies=(1, 32),
    many=256,
    crowd=4,
    tokens=4,
    seconds=(
        Second(name="prompt-guard-86m", shape=shapes.TINY_ENCODER),
        Second(name="llama-guard-1b", shape=shapes.TINY_DECODER),
        Second(name="llama-guard-8b", shape=shapes.TINY_DECODER),
    ),
)

REPLY = ("first token", "per token", "reply")
FIRST = ("first token",)
ALLOW: Goals = {"first token": at_most(1.01, added_ms=0.2), "per token": at_most(1.002)}
QUICK: Goals = {"first token": ALLOW["first token"]}
STEER_ONE: Goals = {"per token": at_most(1.01)}
STEER_ALL: Goals = {"per token": at_most(1.05)}
BLOCK: Goals = {"decision": at_most(0.60)}
MANY: Goals = {"first token": at_most(1.005)}
CROWD: Goals = {"throughput": Goal(kind="at least", value=0.99, slack=SLACK)}
CLOSED: Goals = {"per token": UNCHANGED}
SHARES: dict[str, Goals] = {
    "prompt-guard-86m": {"share": Goal(value=1 / 20)},
    "llama-guard-1b": {"share": Goal(value=1 / 50)},
}
"""The guard's added time, as a share of the second model's."""


def all_jobs(scale: Scale) -> tuple[Job, ...]:
    """In the order in which they are done."""
    return (
        *_must(scale),
        *_without_waiting(scale),
        *_following(scale),
        *_sweeps(scale),
        *_against(scale),
        *_closed(scale),
        *_others(scale),
    )


def planned(scale: Scale) -> list[Row]:
    """Every row, unmeasured."""
    return [row for job in all_jobs(scale) for row in job.missing("not measured")]


def _must(scale: Scale) -> Iterator[Job]:
    base, main = scale.base, scale.main
    crowd = replace(base, batch=scale.crowd)
    for job in (
        _job("allow", jobs.allow, REPLY, base, scale.tokens, ALLOW),
        _job("allow, by hooks alone", jobs.allow_by_hooks, FIRST, base, 1, QUICK),
        _job("block at the middle", jobs.block, ("decision",), base, scale.tokens, BLOCK),
        _job("many policies against one", jobs.many, FIRST, replace(base, policies=scale.many), 1, MANY),
        _job("steer one layer", jobs.steer_one, REPLY, base, scale.tokens, STEER_ONE),
        _job("steer all layers", jobs.steer_all, REPLY, base, scale.tokens, STEER_ALL),
        _job("batch", jobs.throughput, ("throughput",), crowd, max(2, scale.tokens // 2), CROWD),
        *(_second(scale, second) for second in scale.seconds if second.name in SHARES),
    ):
        yield replace(job, must=True, shape=main)


def _second(scale: Scale, second: Second) -> Job:
    goals = SHARES.get(second.name, {})
    made = _job(f"against {second.name}", jobs.second, ("first token", "share"), scale.base, 1, goals)
    return replace(made, second=second, shape=scale.main)


def _without_waiting(scale: Scale) -> Iterator[Job]:
    for job in (
        _job("steering alone, none fires", jobs.steer_alone, FIRST, scale.base, 1),
        _job("in the shadow", jobs.shadow, FIRST, scale.base, 1),
        _job("allow, ahead of the scores", jobs.allow_ahead, FIRST, scale.base, 1),
        _job("block, ahead of the scores", jobs.block_ahead, ("decision",), scale.base, scale.tokens),
    ):
        yield replace(job, shape=scale.main)


def _following(scale: Scale) -> Iterator[Job]:
    job = _job("response stage, every token", jobs.follow, REPLY, scale.base, scale.tokens)
    yield replace(job, shape=scale.main)


def _sweeps(scale: Scale) -> Iterator[Job]:
    base = scale.base
    few = max(2, scale.tokens // 2)
    for prompt in scale.prompts:
        yield replace(_job("allow", jobs.allow, FIRST, replace(base, prompt=prompt), 1), shape=scale.main)
    for count in scale.policies:
        yield replace(_job("allow", jobs.allow, FIRST, replace(base, policies=count), 1), shape=scale.main)
    for batch in scale.batches:
        yield replace(_job("allow", jobs.allow, REPLY, replace(base, batch=batch), few), shape=scale.main)


def _against(scale: Scale) -> Iterator[Job]:
    yield from (_second(scale, second) for second in scale.seconds if second.name not in SHARES)
    for name in ("hooks", "nnsight", "hidden-states"):
        job = _job(f"against {name}", jobs.alternative(name), REPLY, scale.base, scale.tokens)
        yield replace(job, shape=scale.main)


def _closed(scale: Scale) -> Iterator[Job]:
    job = _job("after close", jobs.closed, REPLY, scale.base, scale.tokens, CLOSED)
    yield replace(job, shape=scale.main)


def _others(scale: Scale) -> Iterator[Job]:
    for shape in scale.others:
        for job in (
            _job("allow", jobs.allow, REPLY, scale.base, scale.tokens),
            _job("block at the middle", jobs.block, ("decision",), scale.base, scale.tokens),
            _job("steer one layer", jobs.steer_one, REPLY, scale.base, scale.tokens),
        ):
            yield replace(job, shape=shape)


def _job(
    case: str,
    measure: Measure,
    metrics: tuple[str, ...],
    point: Point,
    tokens: int,
    goals: Goals | None = None,
) -> Job:
    return Job(
        case=case, measure=measure, metrics=metrics, point=point, tokens=tokens, goals=dict(goals or {})
    )
