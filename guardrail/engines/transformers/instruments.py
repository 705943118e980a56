"""What reads and steers a model under one plan: executors on layers, probes as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from torch import nn

from guardrail.engines.transformers.executor import Executor, layer_name
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.reading import Reader
from guardrail.engines.transformers.replies import ReplyReader
from guardrail.engines.transformers.turn import Turn
from guardrail.policy.plan import Plan

ExecutorType: TypeAlias = Callable[[Mapping[str, nn.Module], Turn], Executor]


class Instruments:
    """The executors and readers of the latest plan.

    `prefill` and `decode` are kinds of executors: for the forward pass over a prompt, and for the passes over
    a reply's tokens. `ahead`: on a GPU, do not wait for scores in the middle of a prompt.
    """

    def __init__(
        self, local: LocalModel, prefill: ExecutorType, decode: ExecutorType, ahead: bool = False
    ) -> None:
        self.local, self.ahead = local, ahead
        self.kinds = (prefill, decode, ahead)
        self.prefilling, self.decoding = prefill({}, local.turn), decode({}, local.turn)
        self._visited: tuple[tuple[int, ...], ...] = ()
        self._readers: dict[int, Reader] = {}
        self._reply_reader: ReplyReader | None = None

    def prepare(self, plan: Plan) -> None:
        """Look at the layers that this plan reads, steers, rechecks and follows, and at no others."""
        layers = (self.visited(plan), plan.reply_layers)
        with self.local.turn.lock:
            # a reload that looks at the same layers keeps the executors, and with them nnsight's workers
            if layers != self._visited:
                self._execute(*layers)
                self._visited = layers
            # the latest only, so that the matrices of replaced plans leave the device
            self._readers = {id(plan): Reader(plan)}

    def visited(self, plan: Plan) -> tuple[int, ...]:
        """Every layer that the guard looks at in a prefill under this plan, ascending."""
        if not self.ahead or not plan.layers:
            return plan.visited_layers
        # the pass goes on while scores travel to the host, so it may have to be stopped at any later layer
        later = range(plan.layers[-1] + 1, len(self.local.blocks) + 1)
        return tuple(sorted({*plan.visited_layers, *later}))

    def _execute(self, prompt: Sequence[int], reply: Sequence[int]) -> None:
        """Make the executors: one for both if they are of one kind, so that modules are wrapped once."""
        (prefill, decode, _), turn = self.kinds, self.local.turn
        every = self._modules({*prompt, *reply})
        self.prefilling = prefill(every if prefill is decode else self._modules(prompt), turn)
        self.decoding = self.prefilling if prefill is decode else decode(every, turn)

    def _modules(self, layers: Iterable[int]) -> dict[str, nn.Module]:
        return {layer_name(layer): self.local.blocks[layer - 1] for layer in sorted(layers)}

    def reader(self, plan: Plan) -> Reader:
        """The plan's probes as tensors; requests under way keep the plan that they started with."""
        # an id may be used again once its plan is gone
        if id(plan) not in self._readers or self._readers[id(plan)].plan is not plan:
            self.prepare(plan)
        return self._readers[id(plan)]

    def reply_reader(self, plan: Plan) -> ReplyReader:
        """The plan's probes for generated tokens, as tensors."""
        if self._reply_reader is None or self._reply_reader.plan is not plan:
            self._reply_reader = ReplyReader(plan)
        return self._reply_reader
