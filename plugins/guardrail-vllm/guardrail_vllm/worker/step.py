"""One forward pass under guard: what is read of it, what is decided in it, and what is changed."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from torch import Tensor

from guardrail.engines.transformers.reading import Reader
from guardrail.engines.transformers.replies import ReplyReader
from guardrail.errors import outline
from guardrail.policy.decide import decide, recheck
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Position
from guardrail_vllm.worker.blocks import Stream, columns
from guardrail_vllm.worker.follow import Follow
from guardrail_vllm.worker.pools import Pools
from guardrail_vllm.worker.reports import Reports
from guardrail_vllm.worker.request import Watched
from guardrail_vllm.worker.rows import PlanRows, Row
from guardrail_vllm.worker.steering import Changes, PassSteering


class PlanTensors:
    """The probes and the steering of a plan as tensors, kept while the plan is in use."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.reader, self.changes = plan, Reader(plan), Changes()
        self.replies = ReplyReader(plan) if plan.reply_probes else None
        self.means: dict[int, list[Position]] = {
            layer: sorted({one.position for one in plan.terms(layer)} - {"last"}) for layer in plan.layers
        }


class PlanStep:
    """The requests of one plan in a pass.

    `asked`: rows to be decided on; `pieces`: of prompts that end in a later pass; `others`: rows that go on.
    """

    def __init__(
        self,
        tensors: PlanTensors,
        rows: PlanRows,
        verdicts: dict[str, Decision],
        reports: Reports,
        ends: Sequence[int],
    ) -> None:
        self.tensors, self.plan = tensors, tensors.plan
        self._rows, asked, others = rows, rows.asked, rows.others
        self._verdicts, self._reports, self._ends = verdicts, reports, ends
        self._products: list[Tensor] = []
        self._steering = PassSteering(tensors.changes, self.plan.order)
        self._steer(others)
        self._follows = [
            Follow(row, row.request.monitor, tensors.changes)
            for row in others
            if row.request.monitor is not None and row.request.goes_on
        ]
        self._seen: set[int] = set()
        known = [row for row in asked if self._known(row.request)]
        self._steer(known)
        unknown = [row for row in asked if row not in known]
        self._pools = Pools([*rows.pieces, *unknown], unknown, tensors.means)
        self._open = self._pools.ending
        if not self.plan.layers:
            self._decide([[]] * len(self._open))

    @property
    def layers(self) -> set[int]:
        """The layers to be shown."""
        pieces = [layer for layer, means in self.tensors.means.items() if means and self._rows.pieces]
        reads = set(self.plan.visited_layers if self._rows.asked else pieces)
        return reads | self._steering.layers | {layer for one in self._follows for layer in one.layers}

    def visit(self, layer: int, stream: Stream) -> None:
        """One layer of the pass."""
        self._seen.add(layer)
        for one in self._follows:
            one.read(layer, stream)
        if layer in self.plan.layers:
            self._read(layer, stream)
        if layer in self._steering.layers:
            self._steering.apply(layer, stream)
        if layer in self.plan.recheck_layers:
            self._again(layer, stream)
        for one in self._follows:
            one.steer(layer, stream)

    def _read(self, layer: int, stream: Stream) -> None:
        self._pools.add(layer, stream)
        if not self._open:
            return
        self._products += self.tensors.reader.products(layer, stream.hidden, self._pools)
        if layer == self.plan.layers[-1]:
            self._decide(self.tensors.reader.scores(self._products).tolist())

    def _known(self, request: Watched) -> bool:
        """Whether the decision is made already: by the guard, or for another reply to the same prompt."""
        asked = request.asked
        assert asked is not None
        if asked.forced is not None:
            rules = [self.plan.rule(policy) for policy in asked.forced]
            steering = tuple(rule.steering for rule in rules if rule is not None and rule.steering)
            action = "steer" if steering else "allow"
            request.decided(Decision(status="evaluated", action=action, steering=steering), ())
        elif asked.group is not None and asked.group in self._verdicts:
            request.decided(self._verdicts[asked.group], ())
        return request.decision is not None

    def _decide(self, scores: Sequence[Sequence[float]]) -> None:
        for row, found in zip(self._open, scores, strict=True):
            request = row.request
            # an error of one request is no other's
            try:
                self._decide_one(request, self.tensors.reader.in_order(found))
            except Exception as error:
                request.fail(outline(error))
        self._steer(self._open)
        self._open = []

    def _decide_one(self, request: Watched, readings: Sequence[float]) -> None:
        assert request.asked is not None
        group = request.asked.group
        decision = self._verdicts.get(group) if group is not None else None
        decision = decision or decide(self.plan, readings, request.asked.facts)
        request.decided(decision, readings)
        if group is not None:
            self._verdicts[group] = decision

    def _steer(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.request.steered:
                self._steering.add(row)

    def _again(self, layer: int, stream: Stream) -> None:
        """Read steered prompts again."""
        rows = [row for row in self._rows.asked if row.request.steered]
        if not rows:
            return
        states = stream.at(columns([row.last for row in rows], stream.hidden))
        for row, scores in zip(rows, self.tensors.reader.again(layer, states).tolist(), strict=True):
            request, readings = row.request, self.tensors.reader.spread(layer, scores)
            assert request.decision is not None
            request.decision = recheck(self.plan, request.decision, readings, layer)
            self._reports.rechecked(request, layer, readings)

    def fail(self, error: str) -> None:
        """Stop all requests."""
        for row in self._rows.all:
            row.request.fail(error)

    def settle(self, guard_s: float) -> None:
        """The pass is over."""
        for row in self._steering.rows:
            self._count(row.request)
        for one in self._follows:
            if one.newest and not one.layers <= self._seen:
                one.row.request.fail("a reply was to be followed, but a forward pass was not read")
        for row in self._rows.pieces:
            if row.request.error is not None:
                self._reports.decided(row.request, guard_s)
        for row in self._rows.asked:
            request = row.request
            if request.decision is None:
                request.fail("the pass ended without a decision: generation was not guarded")
            request.follow(self.tensors.replies, self._ends)
            self._reports.decided(request, guard_s)

    def _count(self, request: Watched) -> None:
        wanted = (
            {layer for one in request.decision.steering for layer in one.layers}
            if request.decision
            else set()
        )
        if wanted <= self._seen:
            request.passes += 1
        else:
            request.fail("steering was decided, but a forward pass was not steered")


class Step:
    """A pass over requests of all plans. Nothing raises: an error stops the requests of its plan."""

    def __init__(self, parts: Sequence[PlanStep]) -> None:
        self._parts = parts
        self.guard_s = 0.0

    def visit(self, layer: int, output: object) -> None:
        """What one layer returned."""
        start = perf_counter()
        for part in self._parts:
            try:
                if layer in part.layers:
                    part.visit(layer, Stream(output))
            except Exception as error:
                part.fail(outline(error))
        self.guard_s += perf_counter() - start

    def settle(self) -> None:
        """Count, and tell what was decided."""
        for part in self._parts:
            part.settle(self.guard_s)
