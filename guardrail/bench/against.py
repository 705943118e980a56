"""The rows of `--against`: alternatives to the guard, measured on the same machine in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from guardrail.bench.alternatives import ALTERNATIVES, Alternative
from guardrail.bench.cases import greedy, inputs, plainly
from guardrail.bench.memory import GIB, available
from guardrail.bench.pairs import Recorded, Side, first, record, total
from guardrail.bench.ratios import Timings, interval
from guardrail.bench.results import Point, Row, measured, not_measured
from guardrail.bench.second_model import SECONDS, Second
from guardrail.bench.settings import HEADROOM

if TYPE_CHECKING:
    from guardrail.bench.goals import Goal
    from guardrail.bench.run import Run
    from guardrail.policy.plan import Plan


def against(run: Run, name: str, point: Point, plan: Plan) -> Iterator[Row]:
    """The rows of one alternative at one point."""
    if name in SECONDS:
        yield from second_rows(run, SECONDS[name], point, plan)
        return
    run.couple.close()
    recorded = alternating(run, ALTERNATIVES[name](plan), point)
    yield from run.of_replies(f"against {name}", point).rows(recorded)


def alternating(run: Run, alternative: Alternative, point: Point) -> Recorded:
    """Measure the alternative in place of the guard; with only one model it is attached and detached."""
    couple, settings = run.couple, run.settings
    arguments = greedy(inputs(couple.bare, point.prompt, point.batch), settings.new_tokens, run.clock)
    attached = _Attached(alternative, couple.model)
    sides = [
        Side(partial(alternative.generate, arguments), attached.on),
        Side(plainly(couple.bare, arguments), attached.off if couple.shared else _nothing),
    ]
    try:
        return record(sides, settings.pairs, settings.warm_up, run.clock)
    finally:
        attached.off()


class _Attached:
    """An alternative that is on or off."""

    def __init__(self, alternative: Alternative, model: Any) -> None:
        self._alternative, self._model, self._is_on = alternative, model, False

    def on(self) -> None:
        """Attach, unless it is attached."""
        if not self._is_on:
            self._alternative.attach(self._model)
            self._is_on = True

    def off(self) -> None:
        """Detach, if it is attached."""
        if self._is_on:
            self._alternative.detach()
            self._is_on = False


def _nothing() -> None:
    return None


# --- a second model -----------------------------------------------------------------------------------


def second_rows(run: Run, second: Second, point: Point, plan: Plan) -> Iterator[Row]:
    """What a second model adds to the first token, and the guard's added time relative to that."""
    dtype = str(run.couple.bare.dtype).removeprefix("torch.")
    name = f"against {second.name}"
    needed, free = HEADROOM * second.bytes(dtype), available(run.settings.device)
    if needed > free:
        note = f"needs about {needed / GIB:.1f} GiB, but {free / GIB:.1f} GiB are free"
        yield not_measured(f"{name}: first token ({point})", None, note)
        return
    judge = second.judging(run.settings.device, dtype, point.prompt, point.batch)
    arguments = greedy(inputs(run.couple.bare, point.prompt, point.batch), 1, run.clock)
    guarded = run.couple.generating(plan, arguments)
    recorded = run.recorded(guarded, plainly(run.couple.bare, arguments), judge)
    yield from comparison(name, point, recorded)


def comparison(name: str, point: Point, recorded: Recorded, goal: Goal | None = None) -> Iterator[Row]:
    """Rows from rounds of (guarded, bare, second model alone)."""
    bare = tuple(map(first, recorded.bare))
    judging = tuple(map(total, recorded.others[0]))
    both = Timings(tuple(a + b for a, b in zip(bare, judging, strict=True)), bare)
    yield measured(f"{name}: first token ({point})", both, case=name, metric="first token", point=point)
    yield share(f"guard's added time / {name.removeprefix('against ')}'s ({point})", point, recorded, goal)


def share(name: str, point: Point, recorded: Recorded, goal: Goal | None) -> Row:
    """The guard's added time to the first token, divided by the second model's whole time."""
    timings, judging = recorded.timings(first), np.asarray([laps.total for laps in recorded.others[0]])
    more = np.asarray(timings.guarded) - np.asarray(timings.bare)
    found = interval(more / judging)
    return Row(
        name=name,
        verdict=goal.verdict(found) if goal else "no goal",
        ratio=found,
        added_ms=interval(more),
        bare_ms=float(np.median(judging)),
        guarded_ms=float(np.median(more)),
        pairs=len(judging),
        goal=goal,
        case="share",
        metric="added time",
        point=point,
        note="the column for bare holds the second model's time",
    )


__all__ = ["against", "alternating", "comparison", "share"]
