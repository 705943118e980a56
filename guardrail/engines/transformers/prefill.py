"""One guarded prefill: what is read, decided and steered while the prompt's forward pass runs."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import torch
from torch import Tensor

from guardrail.engines import Evaluator
from guardrail.engines.transformers.ends import on_host
from guardrail.engines.transformers.executor import layer_of
from guardrail.engines.transformers.firing import Firing
from guardrail.engines.transformers.gates import Gates
from guardrail.engines.transformers.pools import Pools
from guardrail.engines.transformers.readback import Readback
from guardrail.engines.transformers.reading import Reader
from guardrail.engines.transformers.steering import BatchSteering
from guardrail.errors import SteeringError
from guardrail.types import Decision


class GuardedPrefill:
    """Visits the layers of one forward pass. `pools` gives the states of its prompts.

    Up to the last layer read it collects scores; there it decides, once per prompt. From there on it steers
    the last prompt position, unless a steered layer already went by: then `needs_recompute` is true and the
    engine runs the last position again, visiting `revisit`.

    Waiting for scores in the middle of a prompt leaves a GPU without work: the host queues no layer while it
    waits. If scores there decide on nothing but steering, the host does not wait: steering opens on the
    device, and the decision follows in `finish`. With `ahead` it does not wait for scores that steer nothing
    either: the pass goes on, and every later layer asks whether they have arrived.
    """

    def __init__(
        self,
        reader: Reader,
        evaluator: Evaluator,
        pools: Pools,
        ahead: bool = False,
    ) -> None:
        self.reader, self.evaluator, self.pools = reader, evaluator, pools
        # a decision that arrives in mid-pass may come after the layers that it would steer
        self.ahead = ahead and not reader.plan.enforced_steering
        self.ends, self.plan = pools.ends, reader.plan
        self.decisions: list[Decision] = []
        self.steering: BatchSteering | None = None
        self.guard_seconds = 0.0
        self._products: list[Tensor] = []
        self._scores: Readback | None = None
        self._gated: Gated | None = None
        self._went_by = False
        self._layers = self.plan.layers
        if not self._layers:
            # nothing to wait for, and a prompt that is stopped now costs no forward pass
            self._decide()

    @property
    def stopped(self) -> bool:
        """Whether every row is decided and none goes on."""
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
            self._products += self.reader.products(layer, hidden, self.pools)
            if layer == self._layers[-1]:
                self._read()
        elif self.ahead and self._scores is not None and not self.decisions and self._scores.arrived:
            # nothing is steered, so the decision can only stop the pass, and that may happen at any layer
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
        """Decide, if that was put off. Call it once the whole forward pass is queued."""
        if self.decisions:
            return
        start = perf_counter()
        self._decide()
        if self._gated is not None and self._scores is not None:
            self._gated.check(self.decisions, self._scores.rows())
            if self.steering is not None and self._gated.gates.passes:
                # the gates steered this pass, not `self.steering`, whose counts are checked at the end
                self.steering.count()
        self.guard_seconds += perf_counter() - start

    def _read(self) -> None:
        """Send the scores to the host, and wait for them if they decide on more than steering."""
        # layers of one model may be on several devices
        device = self._products[-1].device
        scores = self.reader.scores([product.to(device) for product in self._products])
        # the device knows the plan alone: plugins and people can only be asked by the host
        only_steers = self.plan.only_steers and self.evaluator.by_plan
        late = not on_host(scores) and (only_steers or self.ahead)
        if late:
            self._put_off(scores)
        # in one copy, because the host waits once for every copy
        more = (self._gated and self._gated.fired.float(), self.ends.unknown(self.pools.expand))
        columns = [scores, *(columns.to(device) for columns in more if columns is not None)]
        self._scores = Readback(_joined(columns))
        if not late:
            self._decide()

    def _put_off(self, scores: Tensor) -> None:
        """Steer before the decision, or run the last position again after it."""
        steered = self.plan.enforced_steering
        # gates can steer this pass only if none of their layers was computed before the scores
        if steered and steered[0] >= self._layers[-1]:
            self._gated = Gated(self.reader.firing(scores.device), scores, self.pools.expand)
        else:
            self._went_by = True

    def _decide(self) -> None:
        rows = self._scores.rows() if self._scores else [[]] * self.pools.prompts
        readings = [self.reader.in_order(row) for row in rows]
        # first, because an empty row is the caller's error and has no score to decide on
        self.ends.learn(rows)
        self.decisions = [self.evaluator.decide(row, readings[row]) for row in range(self.pools.prompts)]
        if any(decision.steering for decision in self.decisions):
            self.steering = BatchSteering(self.decisions, self.pools.expand, self.plan.order)

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
        scores = self.reader.again(layer, self.pools.at("last", hidden)).tolist()
        for row, decision in enumerate(self.decisions):
            if decision.steering:
                readings = self.reader.spread(layer, scores[row])
                self.decisions[row] = self.evaluator.recheck(row, decision, readings, layer)


def _joined(columns: Sequence[Tensor]) -> Tensor:
    return columns[0] if len(columns) == 1 else torch.cat(list(columns), 1)


class Gated:
    """Steering of a prefill that opens on the device, before the decision."""

    def __init__(self, firing: Firing, scores: Tensor, expand: int) -> None:
        self.fired = firing(scores)
        """[prompts, rules] bool"""
        self._columns, self._rules = scores.shape[1], firing.rules
        self.gates = Gates([(i, rule.steering) for i, rule in enumerate(self._rules) if rule.steering])
        self.gates.open(self.fired.repeat_interleave(expand, 0) if expand > 1 else self.fired)

    def check(self, decisions: Sequence[Decision], rows: Sequence[Sequence[float]]) -> None:
        """Raises SteeringError if a row (scores, then what fired) was not steered as decided."""
        # the same comparison is made twice, in tensors and in `decide`: if they ever differ, the reply would
        # be steered by something that no record shows. A stopped row has no reply
        for decision, row in zip(decisions, rows, strict=True):
            opened = row[self._columns : self._columns + len(self._rules)]
            steered = {rule.id for rule, gate in zip(self._rules, opened, strict=True) if gate}
            if not decision.stops and steered != {change.policy for change in decision.steering}:
                raise SteeringError("the steering on the device differs from the decision")
