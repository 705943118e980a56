"""What is read and decided in one forward pass over pieces of many prompts, and what is changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from guardrail.engines.transformers.continuous.pools import PackedPools
from guardrail.engines.transformers.continuous.rows import Row
from guardrail.engines.transformers.monitor import ReplyMonitor
from guardrail.engines.transformers.reading import Reader
from guardrail.engines.transformers.replies import ReplyReader


class PromptLook:
    """Reads the prompts of one plan, and decides on those that end in this pass: one product per layer."""

    def __init__(
        self, reader: Reader, replies: ReplyReader | None, rows: Sequence[Row], ends: Sequence[int]
    ) -> None:
        self.reader, self.plan = reader, reader.plan
        self._replies, self._rows, self._ends = replies, rows, ends
        self.pools = PackedPools(rows, sorted(self.plan.positions))
        self._products: list[Tensor] = []
        if not self.plan.layers:
            self._decide([[]] * len(self.pools.ending))

    @property
    def layers(self) -> set[int]:
        """The layers to be shown."""
        positions = self.plan.positions - {"last"}
        return {*(self.plan.visited_layers if self.pools.ending else self.plan.layers if positions else ())}

    def visit(self, layer: int, hidden: Tensor) -> bool:
        """One layer of the pass, hidden [1, all tokens, d_model]. Whether prompts are decided with it."""
        if layer not in self.plan.layers:
            return False
        self.pools.add(layer, hidden)
        if not self.pools.ending:
            return False
        self._products += self.reader.products(layer, hidden, self.pools)
        if layer < self.plan.layers[-1]:
            return False
        device = self._products[-1].device
        found = self.reader.scores([product.to(device) for product in self._products])
        self._decide(found.tolist())
        return True

    def _decide(self, scores: Sequence[Sequence[float]]) -> None:
        for row, found in zip(self.pools.ending, scores, strict=True):
            if row.request.over:
                continue
            # an error of one request is no other's
            try:
                row.request.inside(partial(self._decide_one, row, self.reader.in_order(found)))
            except BaseException as error:
                row.request.end(error)

    def _decide_one(self, row: Row, readings: Sequence[float]) -> None:
        request = row.request
        decision = request.evaluator.decide(request.row, readings)
        if not decision.stops and request.chooser is not None and self._replies is not None:
            watch = request.evaluator.watch(request.row)
            if watch.anything:
                request.monitor = ReplyMonitor(
                    self._replies, request.evaluator, [request.row], [watch], self._ends
                )
        request.decided(decision)


class Steered:
    """Steers a request from its last prompt token on, `at` columns [start, end), and reads again if asked to.

    `recheck`: whether this pass is the prompt's.
    """

    def __init__(self, reader: Reader, row: Row, start: int, end: int, recheck: bool) -> None:
        self.reader, self.row, self.start, self.end, self._recheck = reader, row, start, end, recheck

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers to be shown."""
        return self.row.request.steering.layers if self.row.request.steering else ()

    def visit(self, layer: int, hidden: Tensor) -> None:
        """One layer of the pass."""
        request = self.row.request
        if request.over or request.steering is None:
            return
        if layer in request.steering.layers:
            request.steering.apply(layer, hidden[:, self.start : self.end])
        if self._recheck and layer in self.reader.plan.recheck_layers:
            self._again(layer, hidden)

    def _again(self, layer: int, hidden: Tensor) -> None:
        request = self.row.request
        assert request.decision is not None
        scores = self.reader.again(layer, hidden[0, self.end - 1 : self.end]).tolist()[0]
        readings = self.reader.spread(layer, scores)
        decide = partial(request.evaluator.recheck, request.row, request.decision, readings, layer)
        request.decision = request.inside(decide)


class Followed:
    """Follows a reply: reads the newest token at each layer, and steers it where a gate is open."""

    def __init__(self, monitor: ReplyMonitor, row: Row) -> None:
        self.monitor, self.row, self.layers = monitor, row, monitor.layers

    def read(self, layer: int, hidden: Tensor) -> None:
        """Take in what one layer of the pass returned."""
        if layer in self.layers:
            self.monitor.read(layer, hidden[:, self.row.end - 1 : self.row.end])

    def steer(self, layer: int, hidden: Tensor) -> None:
        """Change it, if a gate is open."""
        if layer in self.layers:
            self.monitor.steer(layer, hidden[:, self.row.end - 1 : self.row.end])
