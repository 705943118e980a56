"""One guarded call of `model.generate`.

The prefill that `generate` makes anyway runs under nnsight. Where every row goes on unsteered, nothing else
happens: the same cache and the same first logits continue. Where rows are stopped or steered, `generate` is
left and entered again on the rows that go on, with the prefill that was already computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guardrail.engines import Emit, Evaluator, Scored, traces
from guardrail.engines.intervene import BatchSteering, last_positions
from guardrail.engines.prefill import GuardedPrefill, layer_name, layer_of
from guardrail.engines.rows import (
    cropped,
    kept_rows,
    record_past,
    select_inputs,
    select_outputs,
    stop_recording,
)
from guardrail.errors import EvaluationError, SteeringError
from guardrail.plan import Plan
from guardrail.types import Decision, Timing

if TYPE_CHECKING:
    from guardrail.engines.transformers import TransformersEngine


class _Leave(Exception):
    """Unwinds `generate` after the prefill: no row goes on, or the rows that do are taken up again."""


@dataclass(kw_only=True)
class Generated:
    """What came out. `output` is what `model.generate` returned for the rows in `kept`, if there are any."""

    decisions: list[Decision]
    kept: list[int]
    output: Any = None
    passes: dict[int, int] = field(default_factory=dict[int, int])
    timing: Timing = field(default_factory=Timing)


class Generation:
    """The state of one guarded call; `prefill` takes the place of the model's own while it lasts."""

    def __init__(
        self, engine: TransformersEngine, plan: Plan, evaluator: Evaluator, prompts: int, emit: Emit
    ) -> None:
        self.engine, self.plan, self.evaluator = engine, plan, evaluator
        self.prompts, self.emit = prompts, emit
        self.guarded: GuardedPrefill | None = None
        self.resume: Any = None
        self.timing = Timing()

    def run(self, generate: Callable[..., Any], kwargs: Mapping[str, Any]) -> Generated:
        """Call `generate(**kwargs)` under guard. Raises EvaluationError if nothing was decided."""
        try:
            output = generate(**kwargs)
            result = Generated(decisions=self._decisions(), kept=list(range(self.prompts)), output=output)
        except _Leave:
            result = self._go_on(generate, kwargs)
        result.timing = self.timing
        return result

    def _decisions(self) -> list[Decision]:
        decisions = self.guarded.decisions if self.guarded else []
        if len(decisions) != self.prompts:
            raise EvaluationError(
                f"{len(decisions)} decisions for {self.prompts} prompts: generation was not guarded"
            )
        return decisions

    def prefill(
        self,
        original: Callable[..., Any],
        ids: Tensor,
        config: Any,
        model_kwargs: dict[str, Any],
        **rest: Any,
    ) -> Any:
        """In place of the model's `_prefill`: guarded the first time, the computed outputs the second."""
        if self.resume is not None:
            outputs, self.resume = self.resume, None
            return outputs
        start = perf_counter()
        guarded, outputs = self._guarded_prefill(original, ids, config, model_kwargs, rest)
        seconds = perf_counter() - start
        self.timing = Timing(
            guard=guarded.guard_seconds * 1e3, prefill=(seconds - guarded.guard_seconds) * 1e3
        )
        self.emit(Scored(tuple(guarded.decisions), self.timing))
        if outputs is not None and not guarded.steering and not any(d.stops for d in guarded.decisions):
            return outputs
        self.resume = outputs
        raise _Leave

    def _guarded_prefill(
        self,
        original: Callable[..., Any],
        ids: Tensor,
        config: Any,
        model_kwargs: dict[str, Any],
        rest: dict[str, Any],
    ) -> tuple[GuardedPrefill, Any]:
        guarded = self.guarded = self._start(ids, model_kwargs)
        if guarded.stopped:
            return guarded, None
        cache = model_kwargs.get("past_key_values")
        may_recompute = self.engine.may_recompute(self.plan)
        if may_recompute:
            record_past(cache)
        names = [layer_name(layer) for layer in self.engine.visited(self.plan)]
        outputs = traces.observe(
            self.engine.instrumented,
            names,
            lambda: original(ids, config, model_kwargs, **rest),
            guarded.visit,
        )
        if outputs is not None and guarded.needs_recompute:
            outputs = self._recompute(original, ids, config, model_kwargs, rest, outputs)
        elif outputs is not None and may_recompute:
            stop_recording(outputs.past_key_values)
        return guarded, outputs

    def _start(self, ids: Tensor, model_kwargs: Mapping[str, Any]) -> GuardedPrefill:
        mask, cache = model_kwargs.get("attention_mask"), model_kwargs.get("past_key_values")
        past = cache.get_seq_length() if cache is not None else 0
        columns = ids.shape[1] - past if mask is None or mask.shape[1] == ids.shape[1] else ids.shape[1]
        last = last_positions(mask, columns)
        reader = self.engine.reader(self.plan)
        return GuardedPrefill(reader, self.evaluator, self.prompts, len(ids) // self.prompts, last)

    def _recompute(
        self,
        original: Callable[..., Any],
        ids: Tensor,
        config: Any,
        model_kwargs: dict[str, Any],
        rest: dict[str, Any],
        outputs: Any,
    ) -> Any:
        """Run the last prompt position again, steered, so that the first token is steered too."""
        assert self.guarded is not None
        cache = cropped(outputs.past_key_values)
        mask = model_kwargs.get("attention_mask")
        whole = mask is None or mask.shape[1] == ids.shape[1]
        again = {**model_kwargs, "past_key_values": cache}
        names = [layer_name(layer) for layer in self.engine.visited(self.plan)]
        return traces.observe(
            self.engine.instrumented,
            names,
            lambda: original(ids if whole else ids[:, -1:], config, again, **rest),
            self.guarded.revisit,
        )

    def _go_on(self, generate: Callable[..., Any], kwargs: Mapping[str, Any]) -> Generated:
        """Enter `generate` again with the rows that go on, or end where there are none."""
        decisions = self._decisions()
        kept = [row for row, decision in enumerate(decisions) if not decision.stops]
        if not kept or self.resume is None:
            return Generated(decisions=decisions, kept=[])
        assert self.guarded is not None
        expand = self.guarded.expand
        if len(kept) < self.prompts:
            self.resume = select_outputs(self.resume, kept_rows(kept, expand), self.prompts * expand)
        steering = BatchSteering([decisions[row] for row in kept], expand)
        inputs = select_inputs(kwargs, kept, self.prompts)
        output = self._decode(generate, inputs, steering)
        passes = {
            row: self._passes(row, i, steering) for i, row in enumerate(kept) if decisions[row].steering
        }
        return Generated(decisions=decisions, kept=kept, output=output, passes=passes)

    def _decode(
        self, generate: Callable[..., Any], inputs: Mapping[str, Any], steering: BatchSteering
    ) -> Any:
        if not steering.layers:
            return generate(**inputs)
        prompt = _width(inputs)

        def visit(name: str, hidden: Tensor) -> bool:
            # without a cache every pass holds the whole sequence; only the reply is steered
            steering.apply(
                layer_of(name), hidden[:, prompt - 1 :] if hidden.shape[1] >= prompt > 1 else hidden
            )
            return False

        names = [layer_name(layer) for layer in steering.layers]
        return traces.steer(self.engine.instrumented, names, lambda: generate(**inputs), visit)

    def _passes(self, row: int, i: int, steering: BatchSteering) -> int:
        first = self.guarded.steering.counts[row] if self.guarded and self.guarded.steering else 0
        if first == 0:
            raise SteeringError("steering was decided and the prompt's forward pass was not steered")
        return first + steering.counts[i]


def _width(inputs: Mapping[str, Any]) -> int:
    ids = inputs.get("input_ids", inputs.get("inputs"))
    return ids.shape[1] if isinstance(ids, torch.Tensor) else 1
