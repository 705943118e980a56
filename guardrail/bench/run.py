"""Runs `guardrail bench` and yields rows as they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from guardrail.bench import plans
from guardrail.bench.cases import greedy, inputs, plainly, prefilling
from guardrail.bench.clocks import Call, Stopwatch
from guardrail.bench.couple import Couple
from guardrail.bench.memory import Sizes, peak_mib
from guardrail.bench.pairs import Recorded, Side, record, total
from guardrail.bench.results import Point, Row, Two, measured, not_measured
from guardrail.bench.rows import Replies
from guardrail.bench.settings import GATED, Settings, around, too_large

if TYPE_CHECKING:
    from guardrail.policy.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Measures the cases of one couple."""

    settings: Settings
    couple: Couple
    sizes: Sizes
    clock: Stopwatch
    say: Callable[[str], object]

    def rows(self) -> Iterator[Row]:
        """The base point with every case, then the sweep, then the alternatives at the base point."""
        from guardrail.bench.against import against

        plan = plans.forced_allow(self.couple.guard.active.plan)
        base = Point(
            self.settings.prompts[0], self.settings.batches[0], len(plan.rules) + len(plan.reply_rules)
        )
        for point in around(base, self.settings.prompts, self.settings.batches):
            for case in self.settings.cases:
                yield from self._tried(case, point, partial(self.case, case, point))
        for count in self.settings.policy_counts:
            point = Point(base.prompt, base.batch, count)
            made_up = plans.allowing(self.couple.d_model, plan.layers or plan.reply_layers, count)
            yield from self._tried("allow", point, partial(self.replies, "made-up policies", point, made_up))
        for name in self.settings.against:
            yield from self._tried(name, base, partial(against, self, name, base, plan))

    def _tried(self, case: str, point: Point, measure: Callable[[], Iterator[Row]]) -> Iterator[Row]:
        import torch

        self.say(f"{case}, {point}")
        if note := too_large(self.settings, self.sizes, point):
            yield not_measured(f"{case} ({point})", None, note)
            return
        try:
            yield from measure()
        except torch.OutOfMemoryError:
            yield not_measured(f"{case} ({point})", None, "no memory")

    # --- cases ----------------------------------------------------------------------------------------

    def case(self, case: str, point: Point) -> Iterator[Row]:
        """Measure the user's policies with the verdict of the case."""
        plan, note = self.couple.guard.active.plan, ""
        if case == "block":
            yield self.blocked(point, plans.forced_block(plan))
            return
        if case == "steer":
            plan, note = plans.forced_steer(plan)
        else:
            plan = plans.forced_allow(plan)
        yield from self.replies(case, point, plan, note)

    def replies(self, case: str, point: Point, plan: Plan, note: str = "") -> Iterator[Row]:
        """Measure first token, time per token and whole reply."""
        arguments = greedy(self._inputs(point), self.settings.new_tokens, self.clock)
        guarded, bare = self.couple.generating(plan, arguments), plainly(self.couple.bare, arguments)
        if wrong := self._wrong_action("steer" if case == "steer" else "allow", guarded) or self._wrong_reply(
            case, guarded, bare
        ):
            yield _failed(case, point, wrong)
            return
        recorded = self.recorded(guarded, bare)
        yield from self.of_replies(case, point, note).rows(recorded, self._peak(guarded, bare))

    def of_replies(self, case: str, point: Point, note: str = "") -> Replies:
        """The description of rows of whole replies, with the gate if it applies."""
        goals = {metric: self.settings.goal(case, metric) for metric in GATED}
        return Replies(case=case, point=point, new_tokens=self.settings.new_tokens, goals=goals, note=note)

    def blocked(self, point: Point, plan: Plan) -> Row:
        """A blocked prompt against the bare model's prefill alone."""
        batch = self._inputs(point)
        guarded = self.couple.generating(plan, greedy(batch, self.settings.new_tokens))
        if wrong := self._wrong_action("block", guarded):
            return _failed("block", point, wrong)
        bare = prefilling(self.couple.bare, batch)
        recorded = self.recorded(guarded, bare)
        name = f"block: against a bare prefill ({point})"
        peak = self._peak(guarded, bare)
        timings = recorded.timings(total)
        return measured(name, timings, case="block", metric="decision", point=point, peak_mib=peak)

    # --- measuring ------------------------------------------------------------------------------------

    def recorded(self, guarded: Call, bare: Call, *others: Call) -> Recorded:
        """Time alternating calls; with only one model, the guard is added and removed in between."""
        sides = [Side(guarded, partial(self._wrapped, guarded)), Side(bare, self.couple.unwrap)]
        sides += [Side(other) for other in others]
        return record(sides, self.settings.pairs, self.settings.warm_up, self.clock)

    def _wrapped(self, guarded: Call) -> None:
        if not self.couple.wrapped:
            self.couple.wrap()
            guarded()  # the first call under a new guard does setup work that later calls reuse

    def _wrong_action(self, expected: str, guarded: Call) -> str:
        self.couple.wrap()
        guarded()
        actions = {decision.action for decision in self.couple.guard.last_decisions}
        return "" if actions == {expected} else f"the guard decided {', '.join(sorted(actions))}"

    def _wrong_reply(self, case: str, guarded: Call, bare: Call) -> str:
        self.couple.wrap()
        result: Any = guarded()
        self.couple.unwrap()
        expected: Any = bare()
        if result.shape != expected.shape:
            return "the guarded and the bare reply differ in length"
        same = case == "steer" or bool((result == expected).all())
        return "" if same else "the guarded reply differs from the bare one"

    def _peak(self, guarded: Call, bare: Call) -> Two | None:
        self._wrapped(guarded)
        with_guard = peak_mib(guarded, self.settings.device)
        self.couple.unwrap()
        without = peak_mib(bare, self.settings.device)
        return None if with_guard is None or without is None else Two(guarded=with_guard, bare=without)

    def _inputs(self, point: Point) -> dict[str, Any]:
        if self.couple.guard.active.plan.positions <= {"last"}:
            return inputs(self.couple.bare, point.prompt, point.batch)
        # what reads turns needs some
        return self.couple.asked(point.prompt, point.batch)


def _failed(case: str, point: Point, why: str) -> Row:
    """A failed row. The times of a call with a wrong result mean nothing."""
    return Row(name=f"{case} ({point})", verdict="fail", note=why, case=case, point=point)
