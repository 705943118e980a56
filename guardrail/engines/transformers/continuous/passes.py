"""The forward passes of continuous batching under guard: read, decide, steer, choose the next tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from guardrail.engines.transformers.continuous.attention import apart
from guardrail.engines.transformers.continuous.looks import Followed, PromptLook, Steered
from guardrail.engines.transformers.continuous.repeats import last_positions
from guardrail.engines.transformers.continuous.request import Request
from guardrail.engines.transformers.continuous.rows import Row, rows_of
from guardrail.engines.transformers.executor import layer_name, layer_of
from guardrail.engines.transformers.front import Front
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.modes import evaluating
from guardrail.engines.transformers.reading import Reader
from guardrail.engines.transformers.replies import ReplyReader
from guardrail.errors import EvaluationError
from guardrail.policy.plan import Plan

EVICTED = "the cache had no room for this request any more"


class Readers:
    """The probes of the plans in use, as tensors. A plan that was replaced leaves after its requests."""

    def __init__(self) -> None:
        self._readers: dict[int, tuple[Reader, ReplyReader | None]] = {}

    def of(self, plan: Plan) -> tuple[Reader, ReplyReader | None]:
        """Of prompts, and of replies if the plan is about them."""
        if id(plan) not in self._readers or self._readers[id(plan)][0].plan is not plan:
            self._readers[id(plan)] = Reader(plan), ReplyReader(plan) if plan.reply_probes else None
        return self._readers[id(plan)]

    def keep(self, plans: Sequence[Plan]) -> None:
        """Forget all others."""
        wanted = {id(plan) for plan in plans}
        for key in self._readers.keys() - wanted:
            del self._readers[key]


class Passes:
    """Runs each pass that the manager asks for. Nothing raises: an error ends the requests in the pass.

    `modes`: the modules that have to be in evaluation mode.
    """

    def __init__(self, local: LocalModel, front: Front, modes: Callable[[], tuple[nn.Module, ...]]) -> None:
        self.local, self.front, self._modes = local, front, modes
        self.readers = Readers()
        modules = {layer_name(layer): block for layer, block in enumerate(local.blocks, 1)}
        self._hooked = Hooked(modules, local.turn)
        self._keeps = bool(local.inner._supports_logits_to_keep())
        self._apart = local.device.type == "cpu"

    def run(
        self, batch: dict[str, Any], scheduled: Sequence[Any], requests: Mapping[str, Request]
    ) -> tuple[Tensor, list[Row]]:
        """Logits [1, rows, vocabulary] of which the highest is the next token, and the rows of the pass."""
        rows = rows_of(scheduled, requests)
        nothing = torch.zeros((1, len(batch["logits_indices"]), 1), device=batch["input_ids"].device)
        try:
            self._begin(rows)
            logits = self._logits(batch, rows)
            if logits is not None:
                self._choose(rows, logits)
                return logits, rows
        except BaseException as error:
            for row in rows:
                row.request.end(error)
        return nothing, rows

    def _begin(self, rows: Sequence[Row]) -> None:
        now = perf_counter()
        for row in rows:
            request = row.request
            if request.evaluator.cancelled:
                request.leave()
            elif row.first == 0 and request.decision is None:
                request.evaluator.begun(now - request.submitted)
            elif request.decision is not None and row.first < request.length:
                request.end(EvaluationError(EVICTED))

    def _logits(self, batch: dict[str, Any], rows: Sequence[Row]) -> Tensor | None:
        """None if no request is left that the pass computes something for."""
        turn, start = self.local.turn, perf_counter()
        with turn.taken(), evaluating(self._modes()), self.local.without_autograd():
            self.front.put()
            one = Pass(self.readers, [row for row in rows if not row.request.over], self._ends)
            found = None if one.done else self._observed(one.layers, batch, one.visit)
            if found is not None and (again := one.again):
                found = self._repeated(batch, again, found)
        one.settle(perf_counter() - start)
        return found

    @property
    def _ends(self) -> list[int]:
        return sorted({*self.local.end_tokens, self.local.pad_token})

    def _observed(self, layers: Sequence[int], batch: dict[str, Any], visit: Any) -> Tensor | None:
        forward = partial(self._forward, batch)
        names = [layer_name(layer) for layer in layers]
        return self._hooked.observe(names, forward, visit) if names else forward()

    def _forward(self, batch: dict[str, Any]) -> Tensor:
        self.local.turn.expect()
        given = dict(batch)
        keep = given.pop("logits_to_keep", given["logits_indices"])
        with apart(self.local.inner) if self._apart else nullcontext():
            if self._keeps:
                return self.local.inner(**given, logits_to_keep=keep).logits
            return self.local.inner(**given).logits[:, keep]

    def _repeated(self, batch: dict[str, Any], again: Sequence[Row], logits: Tensor) -> Tensor:
        """The logits, with those of last prompt tokens that are steered at layers which had gone by."""
        looks = [
            Steered(self.readers.of(row.request.plan)[0], row, i, i + 1, True) for i, row in enumerate(again)
        ]

        def visit(name: str, hidden: Tensor) -> bool:
            for look in looks:
                look.visit(layer_of(name), hidden)
            return False

        layers = sorted({layer for row in again for layer in row.request.plan.visited_layers})
        found = self._observed(layers, last_positions(batch, again), visit)
        assert found is not None
        logits = logits.clone()
        logits[0, [row.place for row in again]] = found[0]
        return logits

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Choose the next tokens; where that is not the highest logit, make it so in place."""
        best = logits[0].float().argmax(-1).tolist()
        for row in rows:
            request = row.request
            if row.place is None or request.over or request.chooser is None:
                continue
            try:
                token = best[row.place]
                if not request.chooser.plain:
                    token = request.chooser.choose(logits[0, row.place].float(), request.tokens)
                    logits[0, row.place] = -torch.inf
                    logits[0, row.place, token] = 0
                request.take(token)
            except BaseException as error:
                request.end(error)


class Pass:
    """What is looked at in one forward pass."""

    def __init__(self, readers: Readers, rows: Sequence[Row], ends: Sequence[int]) -> None:
        self._readers, self._rows = readers, rows
        self._asked = [row for row in rows if row.request.decision is None]
        self._steered = [
            Steered(readers.of(row.request.plan)[0], row, row.steered_from, row.end, False)
            for row in rows
            if row.request.steering is not None
        ]
        self._followed = [
            Followed(row.request.monitor, row) for row in rows if row.request.monitor is not None
        ]
        plans = {id(row.request.plan): row.request.plan for row in self._asked}
        self._looks = [
            PromptLook(*readers.of(plan), [row for row in self._asked if row.request.plan is plan], ends)
            for plan in plans.values()
        ]
        self.guard_s = 0.0

    @property
    def done(self) -> bool:
        """Whether nothing more is to be computed for any request."""
        return all(row.request.done for row in self._rows)

    @property
    def layers(self) -> list[int]:
        """The layers to be shown to `visit`."""
        looks = {layer for look in self._looks for layer in look.layers}
        steered = {layer for one in self._steered for layer in one.layers}
        return sorted(looks | steered | {layer for one in self._followed for layer in one.layers})

    def visit(self, name: str, hidden: Tensor) -> bool:
        """One layer. True ends the pass."""
        start, layer = perf_counter(), layer_of(name)
        for one in self._followed:
            one.read(layer, hidden)
        for look in self._looks:
            if look.visit(layer, hidden):
                self._steered += self._begun(look)
        for steered in self._steered:
            steered.visit(layer, hidden)
        for one in self._followed:
            one.steer(layer, hidden)
        self.guard_s += perf_counter() - start
        return self.done

    def _begun(self, look: PromptLook) -> list[Steered]:
        """The steering that begins with the decisions just made, unless its layers have gone by."""
        rows = [row for row in look.pools.ending if row.request.steering is not None and not row.request.over]
        return [
            Steered(look.reader, row, row.end - 1, row.end, True) for row in rows if not _went_by(row.request)
        ]

    @property
    def again(self) -> list[Row]:
        """The prompts whose last token has to be computed again, steered."""
        ending = [row for look in self._looks for row in look.pools.ending]
        return [
            row for row in ending if row.request.steering and not row.request.done and _went_by(row.request)
        ]

    def settle(self, seconds: float) -> None:
        """The pass is over: tell the requests that were decided in it."""
        for row in self._asked:
            request = row.request
            request.prefill_s += seconds - self.guard_s
            request.guard_s += self.guard_s
            if request.over or row.place is None:
                continue
            if request.decision is None:
                request.end(EvaluationError("a pass ended without a decision: generation was not guarded"))
            elif request.done:
                request.end()
            else:
                request.told(request)


def _went_by(request: Request) -> bool:
    steered, read = request.steering, request.plan.layers
    return bool(steered and read and steered.layers[0] < read[-1])
