"""One guarded call of `model.generate`.

The guard looks into the prefill that `generate` makes anyway. If every row goes on unsteered, nothing else
happens: the same cache and the same first logits continue. If all go on and some are steered, hooks begin in
the middle of the same `generate`. If rows are stopped or followed, or nnsight steers, `generate` is left and
entered again for the rows that go on, with the prefill that was already computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from time import perf_counter
from typing import Any

from torch import Tensor

from guardrail.engines import Emit, Evaluator, Refused, Scored
from guardrail.engines.transformers.assembly import special_tokens
from guardrail.engines.transformers.caches import (
    cache_of,
    cropped,
    lengths,
    record_past,
    rewind,
    stop_recording,
)
from guardrail.engines.transformers.ends import Ends
from guardrail.engines.transformers.executor import Visit, layer_name, layer_of
from guardrail.engines.transformers.instruments import Instruments
from guardrail.engines.transformers.monitor import GatedStreamer, ReplyMonitor
from guardrail.engines.transformers.output import GuardedOutput
from guardrail.engines.transformers.pools import Batch, Pools
from guardrail.engines.transformers.prefill import GuardedPrefill
from guardrail.engines.transformers.prefill_call import PrefillCall
from guardrail.engines.transformers.rows import Kept, select_inputs, select_outputs
from guardrail.engines.transformers.steering import BatchSteering
from guardrail.engines.transformers.streamers import held
from guardrail.engines.transformers.unsupported import check_followed, end_ids
from guardrail.errors import EvaluationError, GuardrailError, SteeringError, UnsupportedGeneration
from guardrail.policy.decide_reply import Watch
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Timing


class _Leave(Exception):
    """Unwinds `generate` after the prefill. It is entered again if some rows go on."""


class Generation:
    """The state of one guarded call; `prefill` takes the place of the model's own while it lasts."""

    def __init__(
        self,
        instruments: Instruments,
        plan: Plan,
        evaluator: Evaluator,
        prompts: int,
        width: int,
        emit: Emit,
        batch: Batch | None = None,
    ) -> None:
        self.instruments, self.plan, self.evaluator = instruments, plan, evaluator
        self.prompts, self.width, self.emit, self.batch = prompts, width, emit, batch
        self.guarded: GuardedPrefill | None = None
        self.resume: Any = None
        self.timing = Timing()
        self.watches: dict[int, Watch] = {}
        self._holds_cache = False
        self._steering: BatchSteering | None = None
        self._end: Callable[[], None] = _nothing
        self._release: Callable[[], None] = _nothing

    def run(self, generate: Callable[..., Any], kwargs: Mapping[str, Any]) -> GuardedOutput:
        """Call `generate(**kwargs)` under guard. Raises EvaluationError if nothing was decided."""
        self._watch(kwargs)
        self._holds_cache = cache_of(kwargs) is not None
        kwargs, self._release = held(kwargs)
        try:
            output = generate(**kwargs)
            result = self._generated(output, list(range(self.prompts)), self._steering)
        except _Leave:
            result = self._go_on(generate, kwargs)
        except CancelledError:
            raise
        except Exception as error:
            # before the prefill, `generate` has only looked at its arguments: this is the caller's error, and
            # must not be taken for a failed evaluation and answered with a refusal
            if self.guarded is None and not isinstance(error, GuardrailError):
                raise Refused(error) from error
            raise
        finally:
            self._end()
        result.timing = self.timing
        return result

    def step(self) -> None:
        """Before every forward pass. Raises CancelledError if nobody waits for the reply any more."""
        if self.evaluator.cancelled:
            raise CancelledError

    def _watch(self, kwargs: Mapping[str, Any]) -> None:
        if not self.plan.reply_probes:
            return
        watches = {row: self.evaluator.watch(row) for row in range(self.prompts)}
        self.watches = {row: watch for row, watch in watches.items() if watch.anything}
        if self.watches:
            steers = any(rule.steering for rule in self.plan.reply_rules)
            check_followed(kwargs, self.instruments.local.inner.generation_config, steers)

    def _decisions(self) -> list[Decision]:
        decisions = self.guarded.decisions if self.guarded else []
        # a way of generating that never called our prefill must not pass for one that was allowed
        if len(decisions) != self.prompts:
            raise EvaluationError(
                f"{len(decisions)} decisions for {self.prompts} prompts: generation was not guarded"
            )
        return decisions

    def prefill(self, call: PrefillCall) -> Any:
        """Replaces the model's `_prefill`: guarded the first time, the computed outputs the second."""
        if self.resume is not None:
            outputs, self.resume = self.resume, None
            return outputs
        if self.guarded is not None:
            raise EvaluationError("another `generate` began inside a guarded one")
        start = perf_counter()
        guarded, outputs = self._guarded_prefill(call)
        milliseconds, guard = (perf_counter() - start) * 1e3, guarded.guard_seconds * 1e3
        self.timing = Timing(guard=guard, prefill=milliseconds - guard)
        self.emit(Scored(tuple(guarded.decisions), self.timing))
        stops = [decision.stops for decision in guarded.decisions]
        followed = any(not stops[row] for row in self.watches)
        if outputs is not None and not any(stops) and not followed and self._goes_on(guarded):
            self._release()
            return outputs
        # by now `generate` has sized its state for every row and taken its stopping criteria: rows can only
        # leave, and replies can only be ended, in another call. The prompt is not computed again
        self.resume = outputs
        raise _Leave

    def _goes_on(self, guarded: GuardedPrefill) -> bool:
        """Whether this call of `generate` can go on: unsteered, or steered from here by hooks."""
        if guarded.steering is None:
            return True
        self._steering = guarded.steering.onwards()
        end = self.instruments.decoding.begin(*self._visits(self._steering, None))
        self._end = end or _nothing
        return end is not None

    def _guarded_prefill(self, call: PrefillCall) -> tuple[GuardedPrefill, Any]:
        reader, pools = self.instruments.reader(self.plan), self._pools(call)
        guarded = self.guarded = GuardedPrefill(reader, self.evaluator, pools, self.instruments.ahead)
        if guarded.stopped:
            return guarded, None
        before = lengths(call.cache)
        # a stopped pass is cropped out of a cache of earlier turns, which windowed layers must be ready for
        try:
            outputs = self._outputs(call, guarded, self.plan.may_recompute or any(before))
        except BaseException:
            rewind(call.cache, before)
            raise
        if outputs is None:
            rewind(call.cache, before)
        return guarded, outputs

    def _pools(self, call: PrefillCall) -> Pools:
        # without scores, nothing is copied to the host that could carry the ends of rows
        ends = Ends(call.mask, call.columns, wait=not self.plan.layers)
        runs = self.batch.runs(self.plan.positions, call.first) if self.batch else {}
        return Pools(ends, self.prompts, len(call.ids) // self.prompts, runs)

    def _outputs(self, call: PrefillCall, guarded: GuardedPrefill, record: bool) -> Any:
        """The outputs for the prompt, None if no row goes on. `record`: the cache may be cropped later."""
        if record:
            record_past(call.cache)
        outputs = self._observed(call, guarded.visit)
        if outputs is not None:
            # the pass is queued to its end: waiting for a late decision no longer holds up the device
            guarded.finish()
        if outputs is None or guarded.stopped:
            return None
        if self._holds_cache and any(decision.stops for decision in guarded.decisions):
            raise UnsupportedGeneration(
                "rows were stopped, and the cache that was given has rows for all; give one prompt at a time"
            )
        if guarded.needs_recompute:
            # the last position again, steered, so that the first token is steered too
            return self._observed(call.again(cropped(cache_of(outputs))), guarded.revisit)
        if record:
            stop_recording(cache_of(outputs))
        return outputs

    def _observed(self, call: PrefillCall, visit: Visit) -> Any:
        names = [layer_name(layer) for layer in self.instruments.visited(self.plan)]
        return self.instruments.prefilling.observe(names, call, visit)

    def _go_on(self, generate: Callable[..., Any], kwargs: Mapping[str, Any]) -> GuardedOutput:
        """Enter `generate` again with the rows that go on, or end if there are none."""
        decisions = self._decisions()
        kept = [row for row, decision in enumerate(decisions) if not decision.stops]
        if not kept or self.resume is None:
            return self._output(decisions, [], None)
        assert self.guarded is not None
        self._release()
        expand = self.guarded.pools.expand
        rows = Kept(kept, self.prompts, expand)
        if len(kept) < self.prompts:
            self.resume = select_outputs(self.resume, rows)
        # anew, because rows have moved in the smaller batch
        steering = BatchSteering([decisions[row] for row in kept], expand, self.plan.order)
        inputs = select_inputs(kwargs, rows, special_tokens(self.instruments.local, kwargs)[1])
        monitor = self._monitor(kept, kwargs)
        output = self._decode(generate, inputs, steering, monitor)
        result = self._generated(output, kept, steering)
        result.replies = dict(zip(kept, monitor.followed(), strict=True)) if monitor else {}
        return result

    def _generated(self, output: Any, kept: list[int], steering: BatchSteering | None) -> GuardedOutput:
        decisions = self._decisions()
        result = self._output(decisions, kept, output)
        if steering is not None and steering.layers:
            # every token but the first has a pass of its own
            _check_steered(getattr(output, "sequences", output).shape[1] - self.width - 1, steering)
            steered = [(i, row) for i, row in enumerate(kept) if decisions[row].steering]
            result.passes = {row: self._first(row) + steering.counts[i] for i, row in steered}
        return result

    def _output(self, decisions: list[Decision], kept: list[int], output: Any) -> GuardedOutput:
        return GuardedOutput(
            decisions=decisions, kept=kept, output=output, local=self.instruments.local, width=self.width
        )

    def _monitor(self, kept: list[int], kwargs: Mapping[str, Any]) -> ReplyMonitor | None:
        watches = [self.watches.get(row, Watch(("off",) * len(self.plan.reply_rules))) for row in kept]
        if not any(watch.anything for watch in watches):
            return None
        ends = end_ids(kwargs, self.instruments.local.inner.generation_config)
        return ReplyMonitor(self.instruments.reply_reader(self.plan), self.evaluator, kept, watches, ends)

    def _decode(
        self,
        generate: Callable[..., Any],
        inputs: dict[str, Any],
        steering: BatchSteering,
        monitor: ReplyMonitor | None,
    ) -> Any:
        if not steering.layers and monitor is None:
            # plain rows are decoded at the model's own speed, compiled or not
            return generate(**inputs)
        if monitor is not None:
            inputs = _stoppable(inputs, monitor)
        names, visit = self._visits(steering, monitor)
        return self.instruments.decoding.steer(names, lambda: generate(**inputs), visit)

    def _visits(self, steering: BatchSteering, monitor: ReplyMonitor | None) -> tuple[list[str], Visit]:
        """The layers to look at in every forward pass of the reply, and what to do there."""
        prompt = self.width

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

        layers = sorted({*steering.layers, *(monitor.layers if monitor else ())})
        return [layer_name(layer) for layer in layers], visit

    def _first(self, row: int) -> int:
        """How often the row was steered in the prompt's forward pass."""
        first = self.guarded.steering.counts[row] if self.guarded and self.guarded.steering else 0
        if first == 0:
            raise SteeringError("steering was decided, but the prompt's forward pass was not steered")
        return first


def _check_steered(passes: int, steering: BatchSteering) -> None:
    # code that was compiled or replaced may skip what looks into it, without an error of its own
    if max(steering.counts) < passes:
        raise SteeringError("steering was decided, but not every forward pass of the reply was steered")


def _nothing() -> None:
    """Stands in while no hooks have begun, and for no streamer."""


def _stoppable(inputs: Mapping[str, Any], monitor: ReplyMonitor) -> dict[str, Any]:
    """The arguments of `generate`, changed so that the monitor can end a reply."""
    from transformers import StoppingCriteriaList

    given = inputs.get("stopping_criteria") or ()
    found = {**inputs, "stopping_criteria": StoppingCriteriaList([*given, monitor.ended])}
    if inputs.get("streamer") is not None:
        found["streamer"] = GatedStreamer(inputs["streamer"], monitor)
    return found
