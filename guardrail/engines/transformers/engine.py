"""The transformers engine: a decoder-only model, guarded in the prefill that `generate` makes anyway."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from guardrail.engines import Completion, Emit, Evaluator, Generated, Prompt, Scored, Token
from guardrail.engines.transformers.activations import Site, TransformersActivations
from guardrail.engines.transformers.assembly import assemble
from guardrail.engines.transformers.blocks import text_config
from guardrail.engines.transformers.ends import EMPTY, Ends
from guardrail.engines.transformers.executor import layer_name
from guardrail.engines.transformers.generation import Generation
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.instruments import ExecutorType, Instruments
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.nnsight import Traced
from guardrail.engines.transformers.output import GuardedOutput
from guardrail.engines.transformers.prefill import GuardedPrefill
from guardrail.engines.transformers.prefill_call import PrefillCall
from guardrail.engines.transformers.sampling import generation_arguments, seeded
from guardrail.engines.transformers.unsupported import check_generation, check_rows, prompt_ids, unread
from guardrail.errors import ModelError, PromptError
from guardrail.policy.plan import Plan
from guardrail.types import Array, Decision, Message, Sampling, Timing

MARK = "_guarded_by"


class TransformersEngine:
    """Wraps a model that stays the user's: `close` leaves nothing behind.

    `chat_template` and `template_arguments` are used instead of the tokenizer's own. Raises ModelError for
    models that cannot be guarded, and for one that another guard holds. `prefill` and `decode`: what looks
    into the model's forward passes over a prompt, and over a reply's tokens. `ahead`: on a GPU, do not
    wait in the middle of a prompt, but stop once its scores have arrived.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
        prefill: ExecutorType = Traced,
        decode: ExecutorType = Hooked,
        ahead: bool = False,
    ) -> None:
        self.local = LocalModel(model, tokenizer, chat_template, template_arguments)
        self.model, self.tokenizer, self.inner = model, tokenizer, self.local.inner
        if MARK in self.inner.__dict__:
            raise ModelError("another guard holds this model; close it first")
        self.blocks, self.lock = self.local.blocks, self.local.lock
        self.fingerprint = self.local.fingerprint
        self.instruments = Instruments(self.local, prefill, decode, ahead)
        self._generation: Generation | None = None
        self._owner = 0
        self._attach()

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model takes."""
        return self.local.max_tokens

    @property
    def activations(self) -> TransformersActivations:
        """Reading and patching activations, outside of any guard."""
        return self.local.activations

    def accept(self, plan: Plan) -> None:
        """Raises ModelError if the first token could not be steered."""
        from transformers import DynamicCache

        if not plan.may_recompute:
            return
        windowed = getattr(text_config(self.inner), "sliding_window", None)
        if windowed and not hasattr(DynamicCache, "activate_past_recording"):
            raise ModelError(
                "steering below the last layer read needs a cache that can be cropped; this version of "
                "transformers cannot crop a sliding window; steer at or above the last layer read"
            )

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt's ids; the guard decides what to do with one that is too long."""
        return self.local.render(messages)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        return self.local.renderer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self.tokenizer.decode(ids)

    def hidden_states(
        self, prompt: Prompt, layers: Sequence[int], position: Literal["last", "all"] = "last"
    ) -> dict[int, Array]:
        """The residual stream after each layer: [d_model] for `last`, [tokens, d_model] for `all`."""
        ids, mask = self.batch([prompt])
        found = self.activations.read(ids, mask, [Site(layer) for layer in layers], position)
        return {site.layer: states[0].float().cpu().numpy() for site, states in found.items()}

    def check(self, prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> None:
        """Decide on a batch and generate nothing: the forward ends at the last layer read."""
        ids, mask = self.batch(prompts)
        start = perf_counter()
        with self.lock, torch.no_grad():
            guarded = GuardedPrefill(self.instruments.reader(plan), evaluator, len(prompts), 1, Ends(None, 0))
            if not guarded.decisions:
                names = [layer_name(layer) for layer in plan.layers]
                padded = len({len(prompt.ids) for prompt in prompts}) > 1
                run = partial(self._forward, ids, mask if padded else None)
                self.instruments.prefilling.observe(names, run, guarded.check_only)
        seconds = perf_counter() - start - guarded.guard_seconds
        timing = Timing(guard=guarded.guard_seconds * 1e3, prefill=seconds * 1e3)
        emit(Scored(tuple(guarded.decisions), timing))

    def reply(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        evaluator: Evaluator,
        sampling: Sampling,
        emit: Emit,
        stream: bool = False,
    ) -> Sequence[Completion]:
        """Decide on a batch and answer the rows that go on. `stream` (one row) emits text as it comes."""
        ids, mask = self.batch(prompts)
        kwargs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        kwargs |= generation_arguments(sampling, self.inner, self.tokenizer)
        if stream:
            kwargs["streamer"] = self._streamer(emit)
        with seeded(sampling.seed, self.inner.device):
            result = self.generate(plan, evaluator, emit, kwargs)
        return [result.completions.get(row) or _stopped(d) for row, d in enumerate(result.decisions)]

    def prompts(self, arguments: Mapping[str, Any]) -> list[Prompt]:
        """The prompts in the arguments of `generate`, without padding. Raises PromptError for none."""
        ids = prompt_ids(arguments).cpu()  # one copy, because each one waits for the device
        check_rows(arguments, len(ids), self.unread(arguments))
        mask = arguments.get("attention_mask")
        if mask is None:
            rows = ids.tolist()
        else:
            held = mask.cpu()[:, -ids.shape[1] :].bool()
            rows = [row[kept].tolist() for row, kept in zip(ids, held, strict=True)]
        if not all(rows):
            raise PromptError(EMPTY)
        return [Prompt(tuple(row)) for row in rows]

    def unread(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The arguments of `generate` that hold content which is not text."""
        return unread(self.inner, arguments)

    def generate(
        self, plan: Plan, evaluator: Evaluator, emit: Emit, arguments: Mapping[str, Any]
    ) -> GuardedOutput:
        """`model.generate(**arguments)` under guard. Raises UnsupportedGeneration and PromptError."""
        check_generation(arguments, self.inner.generation_config)
        prompts, width = prompt_ids(arguments).shape
        with self.lock:
            self.instruments.reader(plan)
            self._owner, previous = threading.get_ident(), self._generation
            self._generation = Generation(self.instruments, plan, evaluator, prompts, width, emit)
            try:
                return self._generation.run(self.inner.generate, arguments)
            finally:
                self._generation = previous

    def assemble(
        self, arguments: Mapping[str, Any], generated: Generated | None, answers: Mapping[int, str]
    ) -> Any:
        """What `generate` returns for all rows."""
        return assemble(self.local, arguments, generated, answers)

    def _streamer(self, emit: Emit) -> Any:
        from transformers import TextStreamer

        class Emitter(TextStreamer):
            """Emits text instead of printing it."""

            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if text:
                    emit(Token(text))

        return Emitter(self.tokenizer, skip_prompt=True, skip_special_tokens=True)

    def batch(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """ids and mask [prompts, tokens], padded on the left, on the model's device."""
        return self.local.padded([prompt.ids for prompt in prompts], left=True)

    def _forward(self, ids: Tensor, mask: Tensor | None) -> Any:
        known = inspect.signature(self.inner.forward).parameters
        extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        if mask is not None and "position_ids" in known:
            extra["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return self.inner(input_ids=ids, attention_mask=mask, use_cache=False, **extra)

    def _attach(self) -> None:
        """Put our `_prefill` and a lock in front of the model's own; other threads wait."""
        inner, original = self.inner, self.inner._prefill
        self._before = {
            name: inner.__dict__[name] for name in ("_prefill", "forward") if name in inner.__dict__
        }

        def _prefill(ids: Tensor, config: Any, model_kwargs: dict[str, Any], **rest: Any) -> Any:
            # another thread's `generate` is the user's own, and must not meet the evaluator of this request
            generation = self._generation if self._owner == threading.get_ident() else None
            call = PrefillCall(
                original=original, ids=ids, config=config, model_kwargs=model_kwargs, rest=rest
            )
            return call() if generation is None else generation.prefill(call)

        inner._prefill = _prefill
        inner.forward = _locked(inner.forward, self.lock, self._step)
        inner.__dict__[MARK] = self

    def _step(self) -> None:
        """Before every forward pass, under the lock."""
        if self._generation is not None and self._owner == threading.get_ident():
            self._generation.step()

    def close(self) -> None:
        """Take everything off the model again."""
        with self.lock:
            if self.inner.__dict__.get(MARK) is not self:
                return
            for name in ("_prefill", "forward", MARK):
                self.inner.__dict__.pop(name, None)
            self.inner.__dict__.update(self._before)
            self.instruments = Instruments(self.local, *self.instruments.kinds)


def _locked(forward: Callable[..., Any], lock: Any, step: Callable[[], None]) -> Callable[..., Any]:
    def locked(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            # a lock would break the graph
            return forward(*args, **kwargs)
        with lock:
            step()
            return forward(*args, **kwargs)

    # transformers asks for the signature at every decoding step
    locked.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return locked


def _stopped(decision: Decision) -> Completion:
    return Completion(decision=decision, text="", new_tokens=0, steered_passes=0)
