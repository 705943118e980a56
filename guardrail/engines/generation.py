"""One guarded call of `model.generate`.

The prefill that `generate` makes anyway runs under nnsight. Where every row goes on unsteered, nothing else
happens: the same cache and the same first logits continue. Where rows are stopped or steered, `generate` is
left and entered again on the rows that go on, with the prefill that was already computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guardrail.engines import Emit, Evaluator, Refused, Scored
from guardrail.engines.executor import Visit
from guardrail.engines.intervene import BatchSteering, last_positions
from guardrail.engines.monitor import GatedStreamer, ReplyMonitor
from guardrail.engines.prefill import GuardedPrefill, layer_name, layer_of
from guardrail.engines.replies import Followed
from guardrail.engines.rows import (
    cropped,
    kept_rows,
    lengths,
    record_past,
    rewind,
    select_inputs,
    select_outputs,
    stop_recording,
)
from guardrail.engines.unsupported import check_followed, end_ids
from guardrail.errors import EvaluationError, GuardrailError, SteeringError
from guardrail.plan import Plan
from guardrail.replies import Watch
from guardrail.types import Decision, Timing

if TYPE_CHECKING:
    from guardrail.engines.transformers import TransformersEngine


class _Leave(Exception):
    """Unwinds `generate` after the prefill: no row goes on, or the rows that do are taken up again."""


@dataclass(frozen=True, kw_only=True)
class PrefillCall:
    """One call of the model's own `_prefill`, as `generate` made it. Calling it runs it."""

    original: Callable[..., Any]
    ids: Tensor
    config: Any
    model_kwargs: dict[str, Any]
    rest: dict[str, Any]

    def __call__(self) -> Any:
        """The outputs of the prompt's forward pass."""
        return self.original(self.ids, self.config, self.model_kwargs, **self.rest)

    @property
    def mask(self) -> Tensor | None:
        """The attention mask over everything so far, None where nothing is padded."""
        return self.model_kwargs.get("attention_mask")

    @property
    def cache(self) -> Any:
        """The key-value cache, filled by earlier turns or not."""
        return self.model_kwargs.get("past_key_values")

    @property
    def _whole(self) -> bool:
        """Whether the ids hold all tokens so far, and not only those that are new."""
        return self.mask is None or self.mask.shape[1] == self.ids.shape[1]

    @property
    def columns(self) -> int:
        """How many positions the forward pass computes."""
        past = self.cache.get_seq_length() if self.cache is not None and self._whole else 0
        return self.ids.shape[1] - past

    def again(self, cache: Any) -> PrefillCall:
        """The same call for what is not in this cache: the last position alone."""
        ids = self.ids if self._whole else self.ids[:, -1:]
        return replace(self, ids=ids, model_kwargs={**self.model_kwargs, "past_key_values": cache})


@dataclass(kw_only=True)
class Generated:
    """What came out. `output` is what `model.generate` returned for the rows in `kept`, if there are any.

    `replies`: how those replies went that policies followed, by row.
    """

    decisions: list[Decision]
    kept: list[int]
    output: Any = None
    passes: dict[int, int] = field(default_factory=dict[int, int])
    replies: dict[int, Followed] = field(default_factory=dict[int, Followed])
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
        self.watches: dict[int, Watch] = {}

    def run(self, generate: Callable[..., Any], kwargs: Mapping[str, Any]) -> Generated:
        """Call `generate(**kwargs)` under guard. Raises EvaluationError if nothing was decided."""
        self._watch(kwargs)
        try:
            output = generate(**kwargs)
            result = Generated(decisions=self._decisions(), kept=list(range(self.prompts)), output=output)
        except _Leave:
            result = self._go_on(generate, kwargs)
        except Exception as error:
            if self.guarded is None and not isinstance(error, GuardrailError):
                raise Refused(error) from error
            raise
        result.timing = self.timing
        return result

    def _watch(self, kwargs: Mapping[str, Any]) -> None:
        if not self.plan.reply_probes:
            return
        watches = {row: self.evaluator.watch(row) for row in range(self.prompts)}
        self.watches = {row: watch for row, watch in watches.items() if watch.anything}
        if self.watches:
            steers = any(rule.steering for rule in self.plan.response)
            check_followed(kwargs, self.engine.inner.generation_config, steers)

    def _decisions(self) -> list[Decision]:
        decisions = self.guarded.decisions if self.guarded else []
        if len(decisions) != self.prompts:
            raise EvaluationError(
                f"{len(decisions)} decisions for {self.prompts} prompts: generation was not guarded"
            )
        return decisions

    def prefill(self, call: PrefillCall) -> Any:
        """In place of the model's `_prefill`: guarded the first time, the computed outputs the second."""
        if self.resume is not None:
            outputs, self.resume = self.resume, None
            return outputs
        start = perf_counter()
        guarded, outputs = self._guarded_prefill(call)
        milliseconds, guard = (perf_counter() - start) * 1e3, guarded.guard_seconds * 1e3
        self.timing = Timing(guard=guard, prefill=milliseconds - guard)
        self.emit(Scored(tuple(guarded.decisions), self.timing))
        stops = [decision.stops for decision in guarded.decisions]
        followed = any(not stops[row] for row in self.watches)
        if outputs is not None and not guarded.steering and not any(stops) and not followed:
            return outputs
        self.resume = outputs
        raise _Leave

    def _guarded_prefill(self, call: PrefillCall) -> tuple[GuardedPrefill, Any]:
        reader = self.engine.reader(self.plan)
        expand = len(call.ids) // self.prompts
        last = last_positions(call.mask, call.columns)
        guarded = self.guarded = GuardedPrefill(reader, self.evaluator, self.prompts, expand, last)
        if guarded.stopped:
            return guarded, None
        before, may_recompute = lengths(call.cache), self.engine.may_recompute(self.plan)
        if may_recompute or any(before):
            record_past(call.cache)
        outputs = self._observed(call, guarded.visit)
        if outputs is None:
            rewind(call.cache, before)
            return guarded, None
        if guarded.needs_recompute:
            # the last position again, steered, so that the first token is steered too
            outputs = self._observed(call.again(cropped(outputs.past_key_values)), guarded.revisit)
            if outputs is None:
                rewind(call.cache, before)
        elif may_recompute or any(before):
            stop_recording(outputs.past_key_values)
        return guarded, outputs

    def _observed(self, call: PrefillCall, visit: Visit) -> Any:
        names = [layer_name(layer) for layer in self.engine.visited(self.plan)]
        return self.engine.prefilling.observe(names, call, visit)

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
        monitor = self._monitor(kept, kwargs)
        output = self._decode(generate, inputs, steering, monitor)
        passes = {
            row: self._passes(row, i, steering) for i, row in enumerate(kept) if decisions[row].steering
        }
        replies = dict(zip(kept, monitor.followed(), strict=True)) if monitor else {}
        return Generated(decisions=decisions, kept=kept, output=output, passes=passes, replies=replies)

    def _monitor(self, kept: list[int], kwargs: Mapping[str, Any]) -> ReplyMonitor | None:
        watches = [self.watches.get(row, Watch(("off",) * len(self.plan.response))) for row in kept]
        if not any(watch.anything for watch in watches):
            return None
        ends = end_ids(kwargs, self.engine.inner.generation_config)
        return ReplyMonitor(self.engine.reply_reader(self.plan), self.evaluator, kept, watches, ends)

    def _decode(
        self,
        generate: Callable[..., Any],
        inputs: dict[str, Any],
        steering: BatchSteering,
        monitor: ReplyMonitor | None,
    ) -> Any:
        if not steering.layers and monitor is None:
            return generate(**inputs)
        prompt = _width(inputs)

        def visit(name: str, hidden: Tensor) -> bool:
            layer = layer_of(name)
            if monitor is not None:
                monitor.read(layer, hidden)
            if layer in steering.layers:
                # without a cache every pass holds the whole sequence; only the reply is steered
                steering.apply(layer, hidden[:, prompt - 1 :] if hidden.shape[1] >= prompt > 1 else hidden)
            if monitor is not None:
                monitor.steer(layer, hidden)
            return False

        if monitor is not None:
            inputs = _stoppable(inputs, monitor)
        layers = sorted({*steering.layers, *(monitor.layers if monitor else ())})
        names = [layer_name(layer) for layer in layers]
        output = self.engine.decoding.steer(names, lambda: generate(**inputs), visit)
        passes = getattr(output, "sequences", output).shape[1] - prompt - 1
        if steering.layers and max(steering.counts) < passes:
            raise SteeringError("steering was decided and not every forward pass of the reply was steered")
        return output

    def _passes(self, row: int, i: int, steering: BatchSteering) -> int:
        first = self.guarded.steering.counts[row] if self.guarded and self.guarded.steering else 0
        if first == 0:
            raise SteeringError("steering was decided and the prompt's forward pass was not steered")
        return first + steering.counts[i]


def _stoppable(inputs: Mapping[str, Any], monitor: ReplyMonitor) -> dict[str, Any]:
    """The arguments of `generate` under which the monitor can end a reply."""
    from transformers import StoppingCriteriaList

    given = inputs.get("stopping_criteria") or ()
    found = {**inputs, "stopping_criteria": StoppingCriteriaList([*given, monitor.ended])}
    if inputs.get("streamer") is not None:
        found["streamer"] = GatedStreamer(inputs["streamer"], monitor)
    return found


def _width(inputs: Mapping[str, Any]) -> int:
    ids = inputs.get("input_ids", inputs.get("inputs"))
    return ids.shape[1] if isinstance(ids, torch.Tensor) else 1
