"""The guard of one worker: takes in vLLM's requests, looks into its forward passes, and says which rows end.

One pass: `begin` with its layout, `look` at every layer, `settle`; then `stop` forces the end of whatever may
not get a token. A request that is not known to go on is stopped, whatever the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guardrail.errors import ModelError
from guardrail.policy.plan import Plan
from guardrail.types import Decision
from guardrail_vllm.worker.asked import Source
from guardrail_vllm.worker.reports import Reports
from guardrail_vllm.worker.request import Watched
from guardrail_vllm.worker.rows import Layout, PlanRows, Row
from guardrail_vllm.worker.step import PlanStep, PlanTensors, Step

log = logging.getLogger("guardrail")

LORA = "a LoRA adapter was asked for, and the vectors are not certified for the model with it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request as vLLM's model runner knows it; `end` is a token that ends it, `lora` an adapter's name."""

    length: int
    end: int
    extra: Any
    lora: str | None = None


class WorkerGuard:
    """`source` says what is asked of a request, `reports` is told what came of it.

    `entry` looks a request up by its name; `ends` are the tokens that end a reply.
    """

    def __init__(
        self, source: Source, reports: Reports, entry: Callable[[str], Entry], ends: Sequence[int]
    ) -> None:
        self.source, self.reports = source, reports
        self._entry, self._ends = entry, ends
        self.requests: dict[str, Watched] = {}
        self.verdicts: dict[str, Decision] = {}
        """By group, while a request of the group is there."""
        self.passes = self.repeated = 0
        """Passes, and rows in them whose prompt was decided before and is computed again."""
        self._endless: set[str] = set()
        """Requests that go on after the model's own end."""
        self._tensors: dict[int, PlanTensors] = {}
        self._step: Step | None = None
        self._layout: Layout | None = None

    def begin(self, layout: Layout) -> None:
        """A pass begins."""
        self._layout = layout
        self.passes += 1
        plans: dict[int, PlanRows] = {}
        ending = layout.ending
        for i, name in enumerate(layout.names):
            request = self.requests.get(name) or self._taken_in(name)
            decided = request.decision is not None or request.error is not None
            self.repeated += bool(decided and layout.firsts[i] < layout.lengths[i])
            if decided and not (request.steered or request.monitor is not None):
                continue
            if decided or ending[i] or request.in_pieces:
                rows = self._rows(plans, request)
                kind = rows.others if decided else rows.asked if ending[i] else rows.pieces
                kind.append(_row(request, layout, i))
        self._step = Step([self._part(rows) for rows in plans.values()]) if plans else None

    def _taken_in(self, name: str) -> Watched:
        entry = self._entry(name)
        request = Watched(name=name, length=entry.length, end=entry.end, asked=None)
        self.requests[name] = request
        try:
            request.asked = self.source.of(name, entry.extra)
            if entry.lora is not None:
                raise ModelError(LORA)
        except Exception as error:
            log.warning("request %s is stopped: %s", name, error)
            request.fail(str(error))
            self.reports.decided(request, 0.0)
        else:
            self.reports.begun(request)
            if request.asked.end is not None:
                self._endless.add(name)
        return request

    def _rows(self, plans: dict[int, PlanRows], request: Watched) -> PlanRows:
        assert request.asked is not None
        plan = request.asked.plan
        return plans.setdefault(id(plan), PlanRows(plan))

    def _part(self, rows: PlanRows) -> PlanStep:
        return PlanStep(self.tensors(rows.plan), rows, self.verdicts, self.reports, self._ends)

    def tensors(self, plan: Plan) -> PlanTensors:
        """The plan's probes and steering as tensors."""
        found = self._tensors.get(id(plan))
        if found is None or found.plan is not plan:
            found = self._tensors[id(plan)] = PlanTensors(plan)
        return found

    def keep(self, plans: Sequence[Plan]) -> None:
        """Forget the tensors of all other plans that no request is under."""
        used = [request.asked.plan for request in self.requests.values() if request.asked is not None]
        wanted = {id(plan) for plan in (*plans, *used)}
        self._tensors = {key: found for key, found in self._tensors.items() if key in wanted}

    def look(self, layer: int, output: object) -> None:
        """What a layer returned in the pass; in passes that vLLM makes for itself nothing is looked at."""
        if self._step is not None:
            self._step.visit(layer, output)

    def settle(self) -> None:
        """The pass is over, and nothing has been sampled."""
        if self._step is not None:
            self._step.settle()
        self._step = None
        self.reports.flush()

    @property
    def stopping(self) -> list[tuple[int, int]]:
        """(row, the token that ends it) for all rows of the pass that must not get another token."""
        layout = self._layout
        if layout is None:
            return []
        whole = layout.whole
        rows = ((i, self.requests[name]) for i, name in enumerate(layout.names) if whole[i])
        return [(i, request.last) for i, request in rows if not request.goes_on]

    def stop(self, logits: Tensor | None) -> Tensor | None:
        """Make the end the only token of rows that stop, in logits [rows, vocabulary], in place."""
        layout = self._layout
        if logits is None or layout is None or len(logits) != len(layout.names):
            return logits
        for row, end in self.stopping:
            logits[row] = -torch.inf
            logits[row, end] = 0.0
        return logits

    def withhold(self, logits: Tensor) -> None:
        """Keep the model from saying what ends its reply only when a policy does, in logits as in `stop`."""
        layout = self._layout
        if not self._endless or layout is None or len(logits) != len(layout.names):
            return
        for row, name in enumerate(layout.names):
            if name in self._endless and (request := self.requests[name]).goes_on:
                logits[row, request.last] = -torch.inf

    def forget(self, name: str) -> None:
        """A request is over."""
        self._endless.discard(name)
        request = self.requests.pop(name, None)
        if request is None or request.asked is None:
            return
        group = request.asked.group
        if group is not None and not any(
            other.asked is not None and other.asked.group == group for other in self.requests.values()
        ):
            self.verdicts.pop(group, None)
        if request.passes or request.monitor is not None:
            self.reports.ended(request)
            self.reports.flush()


def _row(request: Watched, layout: Layout, i: int) -> Row:
    return Row(request, int(layout.starts[i]), int(layout.ends[i]), int(layout.firsts[i]))
