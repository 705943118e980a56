"""One guarded prefill: what is read, decided and steered while the prompt's forward pass runs."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import torch
from torch import Tensor

from guardrail.engines import Evaluator
from guardrail.engines.transformers.ends import Ends, on_host
from guardrail.engines.transformers.executor import layer_of
from guardrail.engines.transformers.firing import Firing
from guardrail.engines.transformers.gates import Gates
from guardrail.engines.transformers.readback import Readback
from guardrail.engines.transformers.steering import BatchSteering, Reader
from guardrail.errors import SteeringError
from guardrail.types import Decision


class GuardedPrefill:
    """Visits the layers of one forward pass. `prompts` decisions, `expand` rows for each (beams, samples).

    Up to the last layer read it collects scores; there it decides, once per prompt. From there on it steers
    the last prompt position, unless a steered layer already went by: then `needs_recompute` is true and the
    engine runs the last position again, visiting `revisit`.

    Where scores on another device decide on nothing but steering, nobody waits for them: steering opens on
    the device, and the decision follows in `finish`. With `ahead` nobody waits for scores that steer nothing
    either: the pass goes on, and every layer visited after them asks whether they have arrived.
    """

    def __init__(
        self,
        reader: Reader,
        evaluator: Evaluator,
        prompts: int,
        expand: int,
        ends: Ends,
        ahead: bool = False,
    ) -> None:
        self.reader, self.evaluator = reader, evaluator
        self.ahead = ahead and not reader.plan.enforced_steering
        self.prompts, self.expand, self.ends = prompts, expand, ends
        self.plan = reader.plan
        self.decisions: list[Decision] = []
        self.steering: BatchSteering | None = None
        self.guard_seconds = 0.0
        self._chunks: list[Tensor] = []
        self._scores: Readback | None = None
        self._gated: Gated | None = None
        self._went_by = False
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
        if self.steering is None or not self._layers:
            return False
        return self._went_by or self.steering.layers[0] < self._layers[-1]

    def visit(self, name: str, hidden: Tensor) -> bool:
        """One layer of the prefill. True stops the forward pass."""
        start, layer = perf_counter(), layer_of(name)
        if self._scores is None and layer in self._layers:
            self._chunks.append(self._scores_at(layer, hidden))
            if layer == self._layers[-1]:
                self._read()
        elif self.ahead and self._scores is not None and not self.decisions and self._scores.arrived:
            self._decide()
        if self._gated is not None:
            self._gated.gates.apply(layer, *self._where(hidden))
        elif self.steering and not self.needs_recompute:
            self._steer(layer, hidden)
        self.guard_seconds += perf_counter() - start
        return self.stopped

    def revisit(self, name: str, hidden: Tensor) -> bool:
        """One layer of the second pass over the last prompt position alone. True stops it."""
        self._steer(layer_of(name), hidden)
        return self.stopped

    def check_only(self, name: str, hidden: Tensor) -> bool:
        """As `visit`, but nothing goes on after the last layer read."""
        if self.visit(name, hidden) or self._scores is None:
            return self.stopped
        self.finish()
        return True

    def finish(self) -> None:
        """The forward pass is queued to its end. Decides, if that was put off."""
        if self.decisions:
            return
        start = perf_counter()
        self._decide()
        if self._gated is not None and self._scores is not None:
            self._gated.check(self.decisions, self._scores.rows())
            if self.steering is not None and self._gated.gates.passes:
                self.steering.count()
        self.guard_seconds += perf_counter() - start

    def _scores_at(self, layer: int, hidden: Tensor) -> Tensor:
        states = self.ends.at(hidden)
        return self.reader.scores(layer, states if self.expand == 1 else states[:: self.expand])

    def _read(self) -> None:
        """Send the scores to the host; wait for them where more than steering hangs on them."""
        device = self._chunks[-1].device
        scores = _joined([chunk.to(device) for chunk in self._chunks])
        only_steers = self.plan.only_steers and self.evaluator.by_plan
        late = not on_host(scores) and (only_steers or self.ahead)
        if late:
            self._put_off(scores)
        more = (self._gated and self._gated.fired.float(), self.ends.unknown(self.expand))
        columns = [scores, *(columns.to(device) for columns in more if columns is not None)]
        self._scores = Readback(_joined(columns))
        if not late:
            self._decide()

    def _put_off(self, scores: Tensor) -> None:
        """Steer before anybody has decided, or the last position again once somebody has."""
        steered = self.plan.enforced_steering
        if steered and steered[0] >= self._layers[-1]:
            self._gated = Gated(self.reader.firing(scores.device), scores, self.expand)
        else:
            self._went_by = True

    def _decide(self) -> None:
        rows = self._scores.rows() if self._scores else [[]] * self.prompts
        readings = [self.reader.in_order(row) for row in rows]
        self.ends.learn(rows)
        self.decisions = [self.evaluator.decide(row, readings[row]) for row in range(self.prompts)]
        if any(decision.steering for decision in self.decisions):
            self.steering = BatchSteering(self.decisions, self.expand, self.plan.order)

    def _where(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """The part of hidden that is steered, and which of its positions, if not all."""
        onwards = self.ends.onwards(hidden)
        return (hidden[:, -1:] if onwards is None else hidden), onwards

    def _steer(self, layer: int, hidden: Tensor) -> None:
        if self.steering is None:
            return
        self.steering.apply(layer, *self._where(hidden))
        if layer in self.plan.recheck_layers:
            self._recheck(layer, hidden)

    def _recheck(self, layer: int, hidden: Tensor) -> None:
        scores = self._scores_at(layer, hidden).tolist()
        for row, decision in enumerate(self.decisions):
            if decision.steering:
                readings = self.reader.spread(layer, scores[row])
                self.decisions[row] = self.evaluator.recheck(row, decision, readings, layer)


def _joined(columns: Sequence[Tensor]) -> Tensor:
    return columns[0] if len(columns) == 1 else torch.cat(list(columns), 1)


class Gated:
    """Steering of a prefill that opens on the device, before anybody has decided."""

    def __init__(self, firing: Firing, scores: Tensor, expand: int) -> None:
        self.fired = firing(scores)
        """[prompts, rules] bool"""
        self._columns, self._rules = scores.shape[1], firing.rules
        self.gates = Gates([(i, rule.steering) for i, rule in enumerate(self._rules) if rule.steering])
        self.gates.open(self.fired.repeat_interleave(expand, 0) if expand > 1 else self.fired)

    def check(self, decisions: Sequence[Decision], rows: Sequence[Sequence[float]]) -> None:
        """Raises SteeringError where a row (scores, then what fired) was steered otherwise than decided."""
        for decision, row in zip(decisions, rows, strict=True):
            opened = row[self._columns : self._columns + len(self._rules)]
            steered = {rule.id for rule, gate in zip(self._rules, opened, strict=True) if gate}
            if not decision.stops and steered != {change.policy for change in decision.steering}:
                raise SteeringError("the prompt was steered on the device otherwise than was decided")
