"""One guarded prefill: what is read, decided and steered while the prompt's forward pass runs."""

from __future__ import annotations

from time import perf_counter

import torch
from torch import Tensor

from guardrail.engines import Evaluator
from guardrail.engines.intervene import BatchSteering, Reader, at_last
from guardrail.types import Decision


class GuardedPrefill:
    """Visits the layers of one forward pass. `prompts` decisions, `expand` rows for each (beams, samples).

    Up to the last layer read it collects scores; there it decides, once per prompt. From there on it steers
    the last prompt position, unless a steered layer already went by: then `needs_recompute` is true and the
    engine runs the last position again, visiting `revisit`.
    """

    def __init__(
        self, reader: Reader, evaluator: Evaluator, prompts: int, expand: int, last: Tensor | None
    ) -> None:
        self.reader, self.evaluator = reader, evaluator
        self.prompts, self.expand, self.last = prompts, expand, last
        self.plan = reader.plan
        self.decisions: list[Decision] = []
        self.steering: BatchSteering | None = None
        self.guard_seconds = 0.0
        self._pending: list[Tensor] = []
        self._columns = 0
        self._layers = self.plan.layers
        if not self._layers:
            self._decide()

    @property
    def stopped(self) -> bool:
        """Whether every row was decided and none goes on."""
        return bool(self.decisions) and all(decision.stops for decision in self.decisions)

    @property
    def needs_recompute(self) -> bool:
        """Whether a row is to be steered at a layer that was computed before the decision."""
        return bool(self.steering and self._layers and self.steering.layers[0] < self._layers[-1])

    def visit(self, name: str, hidden: Tensor) -> bool:
        """One layer of the prefill. True stops the forward pass."""
        start, layer = perf_counter(), layer_of(name)
        if not self.decisions and layer in self._layers:
            self._pending.append(self._scores(layer, hidden))
            if layer == self._layers[-1]:
                self._decide()
        if self.steering and not self.needs_recompute:
            self._steer(layer, hidden)
        self.guard_seconds += perf_counter() - start
        return self.stopped

    def revisit(self, name: str, hidden: Tensor) -> bool:
        """One layer of the second pass over the last prompt position alone. True stops it."""
        self._steer(layer_of(name), hidden)
        return self.stopped

    def check_only(self, name: str, hidden: Tensor) -> bool:
        """As `visit`, but nothing goes on after the decision."""
        return self.visit(name, hidden) or bool(self.decisions)

    def _scores(self, layer: int, hidden: Tensor) -> Tensor:
        self._columns = hidden.shape[1]
        states = at_last(hidden, self.last)
        return self.reader.scores(layer, states if self.expand == 1 else states[:: self.expand])

    def _decide(self) -> None:
        values = self._values() if self._pending else [[]] * self.prompts
        readings = [self.reader.in_order(row) for row in values]
        self.decisions = [self.evaluator.decide(row, readings[row]) for row in range(self.prompts)]
        if any(decision.steering for decision in self.decisions):
            self.steering = BatchSteering(self.decisions, self.expand)

    def _values(self) -> list[list[float]]:
        """[prompts][scores of all layers]; one copy, which also tells whether anything is padded."""
        device = self._pending[-1].device
        chunks = [scores.to(device) for scores in self._pending]
        if self.last is not None:
            chunks.append(self._padded(self.last).to(device))
        values = (chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=1)).tolist()
        if self.last is not None and not any(row[-1] for row in values):
            self.last = None
        return values

    def _padded(self, last: Tensor) -> Tensor:
        """[prompts, 1]: 1 where something comes after the last token."""
        return (last[:: self.expand, None] < self._columns - 1).float()

    def _steer(self, layer: int, hidden: Tensor) -> None:
        if self.steering is None:
            return
        if self.last is None or hidden.shape[1] == 1:
            self.steering.apply(layer, hidden[:, -1:])
        else:
            columns = torch.arange(hidden.shape[1], device=hidden.device)
            self.steering.apply(layer, hidden, columns[None] >= self.last.to(hidden.device)[:, None])
        if layer in self.plan.recheck_layers:
            self._recheck(layer, hidden)

    def _recheck(self, layer: int, hidden: Tensor) -> None:
        last = None if hidden.shape[1] == 1 else self.last
        scores = self.reader.scores(layer, at_last(hidden, last)[:: self.expand]).tolist()
        for row, decision in enumerate(self.decisions):
            if decision.steering:
                readings = self.reader.spread(layer, scores[row])
                self.decisions[row] = self.evaluator.recheck(row, decision, readings, layer)


def layer_name(layer: int) -> str:
    """The name of a decoder block under nnsight."""
    return f"layer_{layer}"


def layer_of(name: str) -> int:
    """The layer that `layer_name` named."""
    return int(name.removeprefix("layer_"))
