"""How each job of the GPU suite is measured: two calls of equal work, checked, then timed in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.lab import Lab, engine_of, guarded_by
from benchmarks.runner import WrongResult
from guardrail.bench.against import comparison
from guardrail.bench.alternatives import ALTERNATIVES
from guardrail.bench.cases import inputs, prefilling
from guardrail.bench.pairs import total
from guardrail.bench.plans import allowing, blocking, following, steering, steering_alone, watching
from guardrail.bench.results import Row, measured
from guardrail.bench.rows import Replies
from guardrail.engines.transformers.hooks import Hooked
from guardrail.policy.plan import Plan

if TYPE_CHECKING:
    from benchmarks.suite import Job, Measure


def allow(lab: Lab, job: Job) -> Iterator[Row]:
    """Read, decide, go on: the same tokens as the bare model's."""
    plan = _allowing(lab, job)
    yield from _replies(lab, job, plan, _same_tokens)


def on_engine(measure: Measure, **options: Any) -> Measure:
    """The same with another engine than the default one."""

    def measured_there(lab: Lab, job: Job) -> Iterator[Row]:
        lab.put_on(**options)
        try:
            yield from measure(lab, job)
        finally:
            lab.close()

    return measured_there


def follow(lab: Lab, job: Job) -> Iterator[Row]:
    """Every generated token is read and looked at: the same tokens as the bare model's."""
    plan = following(_width(lab), lab.shape.read, job.point.policies)
    yield from _replies(lab, job, plan, _same_tokens)


def steer_one(lab: Lab, job: Job) -> Iterator[Row]:
    """Steered at the layer that is read last, in every forward pass."""
    yield from _steered(lab, job, lab.shape.read[-1:])


def steer_all(lab: Lab, job: Job) -> Iterator[Row]:
    """Steered at every layer; those below the last one read make the last prompt position run again."""
    yield from _steered(lab, job, tuple(range(1, lab.shape.layers + 1)))


def steer_alone(lab: Lab, job: Job) -> Iterator[Row]:
    """Policies that only steer, and none fires: nobody waits for their scores in mid-prompt."""
    plan = steering_alone(_width(lab), lab.shape.read, job.point.policies, lab.shape.read[-1:])
    yield from _replies(lab, job, plan, _same_tokens)


def shadow(lab: Lab, job: Job) -> Iterator[Row]:
    """Policies in the shadow, whose scores nobody waits for either."""
    plan = watching(_width(lab), lab.shape.read, job.point.policies)
    yield from _replies(lab, job, plan, _same_tokens)


def _steered(lab: Lab, job: Job, layers: tuple[int, ...]) -> Iterator[Row]:
    plan = steering(_width(lab), lab.shape.read, job.point.policies, layers)
    yield from _replies(lab, job, plan, lambda result, bare: result.passes == {0: job.tokens})


def _replies(
    lab: Lab, job: Job, plan: Plan, holds: Callable[[Any, Any], bool] = lambda result, bare: True
) -> Iterator[Row]:
    arguments = lab.arguments(job.point, job.tokens)
    guarded, bare = lab.guarded(plan, arguments), lab.plain(arguments)
    _check(job, holds(guarded(), bare()))
    recorded = lab.recorded(guarded, bare, must=job.must)
    yield from _of(job).rows(recorded, lab.peak(guarded, bare))


def throughput(lab: Lab, job: Job) -> Iterator[Row]:
    """Tokens per second of a whole batch that is allowed."""
    arguments = lab.arguments(job.point, job.tokens)
    guarded, bare = lab.guarded(_allowing(lab, job), arguments), lab.plain(arguments)
    _check(job, torch.equal(guarded().output, bare()))
    yield _of(job).throughput(lab.recorded(guarded, bare, must=job.must))


def block(lab: Lab, job: Job) -> Iterator[Row]:
    """Stopped at the middle layer, against the bare model's prefill alone."""
    plan = blocking(_width(lab), lab.shape.read, job.point.policies)
    batch = inputs(lab.bare, job.point.prompt, job.point.batch)
    guarded, bare = lab.guarded(plan, lab.arguments(job.point, job.tokens)), prefilling(lab.bare, batch)
    _check(job, not guarded().kept)
    timings = lab.recorded(guarded, bare, must=job.must).timings(total)
    yield _row(job, "decision", timings)


allow_by_hooks = on_engine(allow, prefill=Hooked)
allow_ahead = on_engine(allow, prefill=Hooked, ahead=True)
block_ahead = on_engine(block, prefill=Hooked, ahead=True)


def many(lab: Lab, job: Job) -> Iterator[Row]:
    """Many policies, against one policy on a third model. A plan of its own on each: none is loaded anew."""
    third = engine_of(lab.another())
    try:
        arguments = lab.arguments(job.point, job.tokens)
        one = allowing(_width(lab), lab.shape.read, 1)
        guarded, single = lab.guarded(_allowing(lab, job), arguments), guarded_by(third, one, arguments)
        _check(job, torch.equal(guarded().output, single().output))
        recorded = lab.recorded(guarded, single, must=job.must)
    finally:
        third.close()
    yield from _of(job).rows(recorded)


def second(lab: Lab, job: Job) -> Iterator[Row]:
    """A second model in front of the bare one, and the guard's added time as a share of the second's."""
    assert job.second is not None
    session, arguments = lab.session, lab.arguments(job.point, job.tokens)
    judge = job.second.judging(session.device, session.dtype, job.point.prompt, job.point.batch)
    guarded, bare = lab.guarded(_allowing(lab, job), arguments), lab.plain(arguments)
    recorded = lab.recorded(guarded, bare, judge, must=job.must)
    rows = comparison(job.case, job.point, recorded, job.goals.get("share"))
    for metric, row in zip(job.metrics, rows, strict=True):
        yield replace(row, name=job.name(metric))


def alternative(name: str) -> Callable[[Lab, Job], Iterator[Row]]:
    """One of the alternatives in the guard's place."""
    return partial(_alternative, name)


def _alternative(name: str, lab: Lab, job: Job) -> Iterator[Row]:
    lab.close()
    other, arguments = ALTERNATIVES[name](_allowing(lab, job)), lab.arguments(job.point, job.tokens)
    other.attach(lab.model)
    try:
        guarded, bare = partial(other.generate, arguments), lab.plain(arguments)
        _check(job, torch.equal(guarded(), bare()))
        recorded = lab.recorded(guarded, bare, must=job.must)
    finally:
        other.detach()
    yield from _of(job).rows(recorded)


def closed(lab: Lab, job: Job) -> Iterator[Row]:
    """After `close`: the model is its own again."""
    lab.close()
    arguments = lab.arguments(job.point, job.tokens)
    once, bare = partial(lab.model.generate, **arguments), lab.plain(arguments)
    _check(job, torch.equal(once(), bare()))
    yield from _of(job).rows(lab.recorded(once, bare, must=job.must))


# --- shared -------------------------------------------------------------------------------------------


def _allowing(lab: Lab, job: Job) -> Plan:
    return allowing(_width(lab), lab.shape.read, job.point.policies)


def _width(lab: Lab) -> int:
    return int(lab.shape.settings["hidden_size"])


def _of(job: Job) -> Replies:
    return Replies(
        case=job.case,
        point=job.point,
        new_tokens=job.tokens,
        prefix=f"{job.shape.name}: ",
        goals=job.goals,
    )


def _row(job: Job, metric: str, timings: Any) -> Row:
    goal = job.goals.get(metric)
    return measured(job.name(metric), timings, goal, case=job.case, metric=metric, point=job.point)


def _same_tokens(result: Any, bare: Any) -> bool:
    return torch.equal(result.output, bare)


def _check(job: Job, holds: bool) -> None:
    if not holds:
        raise WrongResult(f"{job.shape.name}: {job.case} ({job.point})")
