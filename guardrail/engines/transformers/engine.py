"""The transformers engine: a decoder-only model, guarded in the prefill that `generate` makes anyway."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Literal

from torch import Tensor

from guardrail.engines import Completion, Emit, Evaluator, Generated, Prompt, Scored
from guardrail.engines.transformers.activations import TransformersActivations
from guardrail.engines.transformers.assembly import assemble
from guardrail.engines.transformers.blocks import decoder_of
from guardrail.engines.transformers.caches import CACHES, holds_tokens
from guardrail.engines.transformers.configuration import configuration
from guardrail.engines.transformers.ends import EMPTY, Ends
from guardrail.engines.transformers.executor import layer_name
from guardrail.engines.transformers.front import Ask, Front
from guardrail.engines.transformers.generation import Generation
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.identity import Identity
from guardrail.engines.transformers.instruments import ExecutorType, Instruments
from guardrail.engines.transformers.lengths import apart, check_alike
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.modes import evaluating
from guardrail.engines.transformers.nnsight import Traced
from guardrail.engines.transformers.output import GuardedOutput
from guardrail.engines.transformers.pools import Batch, Pools
from guardrail.engines.transformers.prefill import GuardedPrefill
from guardrail.engines.transformers.prefill_call import PrefillCall
from guardrail.engines.transformers.replying import Replying
from guardrail.engines.transformers.turn import claim, release
from guardrail.engines.transformers.unsupported import (
    check_generation,
    check_rows,
    check_steering,
    held_columns,
    prompt_ids,
    read_ids,
    unread,
)
from guardrail.errors import PromptError
from guardrail.policy.plan import Plan
from guardrail.types import Array, Configuration, Fingerprint, Message, Position, RawPrompt, Sampling, Timing
from guardrail.types.sampling import EXTRAS


class TransformersEngine:
    """Wraps a model that stays the user's: `close` leaves nothing behind.

    `chat_template` and `template_arguments` are used instead of the tokenizer's own. Raises ModelError for
    models that cannot be guarded, and for one that another guard holds. `prefill` and `decode`: what looks
    into the model's forward passes over a prompt, and over a reply's tokens. `ahead`: on a GPU, do not
    wait in the middle of a prompt, but stop once its scores have arrived.
    """

    name = "transformers"

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
        self.blocks, self.turn = self.local.blocks, self.local.turn
        self.instruments = Instruments(self.local, prefill, decode, ahead)
        self._generation: Generation | None = None
        claim(self.blocks)
        decoder = decoder_of(self.inner, self.blocks)
        self.front = Front(self.inner, decoder, self.turn, self._prefill, self._step)
        self.identity = Identity(self.local)
        # not looked up later: a user may put a guard's `generate` in its place, which would end up here again
        self._generate = self.inner.generate
        self._open = True

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model takes."""
        return self.local.max_tokens

    @property
    def activations(self) -> TransformersActivations:
        """Reading and patching activations, outside of any guard."""
        return self.local.activations

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the model that requests are held to."""
        return self.identity.fingerprint

    @property
    def configuration(self) -> Configuration:
        """How the model is run now. The ways of looking into it are tested equal, and not part of it."""
        return configuration(self.local, self.name)

    def change(self) -> str | None:
        """What has changed in the model since it was loaded or accepted, in words."""
        return self.identity.change()

    def identify(self) -> Fingerprint:
        """The fingerprint of the model as it is now. Raises ModelError if it can no longer be guarded."""
        return self.identity.identify()

    @property
    def chat_template(self) -> str:
        """The chat template, as Jinja text."""
        return self.local.renderer.template

    @property
    def sampling_options(self) -> frozenset[str]:
        """The options of sampling that it knows besides those that every engine knows: all."""
        return frozenset(EXTRAS)

    @property
    def positions(self) -> frozenset[Position]:
        """The positions whose states it reads."""
        return self.local.positions

    def accept(self, plan: Plan) -> None:
        """Hold requests to the model as identified. Raises ModelError for what the plan asks in vain."""
        check_steering(self.inner, plan)
        self.local.renderer.check(plan.positions)
        if self.identity.accept():
            # what is looked into may be another module now
            self.instruments = Instruments(self.local, *self.instruments.kinds)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        positions: Collection[Position] = (),
    ) -> Prompt:
        """The prompt's ids; the guard decides what to do with one that is too long."""
        self.turn.refuse_reentry()
        return self.local.renderer.render(messages, tools, positions)

    def raw(self, prompt: RawPrompt, positions: Collection[Position] = ()) -> Prompt:
        """The ids of a text without a chat template. Raises PromptError for ids that are none."""
        self.turn.refuse_reentry()
        return self.local.renderer.raw(prompt, self.local.vocabulary, positions)

    def together(self, lengths: Sequence[int], room: int) -> list[list[int]]:
        """Places of prompts of these lengths that may be in one batch, with `room` tokens for each reply."""
        return apart(lengths, room, self.local.switches)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        return self.local.renderer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self.tokenizer.decode(ids)

    def hidden_states(
        self, prompt: Prompt, layers: Sequence[int], position: Position | Literal["all"] = "last"
    ) -> dict[int, Array]:
        """The residual stream after each layer: [tokens, d_model] for `all`, else [d_model]."""
        return self.local.hidden_states(prompt, layers, position)

    def check(self, prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> None:
        """Decide on a batch and generate nothing: the forward ends at the last layer read."""
        ids, mask = self.batch(prompts)
        start = perf_counter()
        with self.turn.taken(), evaluating(self.identity.modules), self.local.without_autograd():
            self.front.put()
            pools = Pools(Ends(None, 0), len(prompts), runs=Batch.left_padded(prompts).runs(plan.positions))
            guarded = GuardedPrefill(self.instruments.reader(plan), evaluator, pools)
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
        replying = Replying(self.local, sampling, len(ids), ids.shape[1], emit if stream else None)
        kwargs = {"input_ids": ids, "attention_mask": mask, **replying.arguments}
        with self.local.without_autograd():
            result = self._generated(plan, evaluator, emit, kwargs, Batch.left_padded(prompts))
        return replying.completions(result)

    def prompts(self, arguments: Mapping[str, Any], positions: Collection[Position] = ()) -> list[Prompt]:
        """The prompts in the arguments of `generate`, without padding, with the spans of these positions.

        Raises PromptError if there are none, and if the tokens of a position cannot be found.
        """
        return list(self._read(arguments, positions).prompts)

    def _read(self, arguments: Mapping[str, Any], positions: Collection[Position]) -> Batch:
        self.turn.refuse_reentry()
        ids = read_ids(arguments, self.local.vocabulary)
        check_rows(arguments, len(ids), self.unread(arguments))
        columns = held_columns(ids, arguments, self.inner.generation_config)
        rows = [row[held].tolist() for row, held in zip(ids, columns, strict=True)]
        if not all(rows):
            raise PromptError(EMPTY)
        check_alike([len(row) for row in rows], self.local.switches)
        found = self.local.renderer.spans_in
        return Batch([Prompt(tuple(row), spans=found(row, positions)) for row in rows], columns)

    def unread(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The arguments of `generate` that hold content which is not text."""
        return unread(self.inner, arguments)

    def hidden(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """A cache among the arguments of `generate` that holds tokens, by its name."""
        return tuple(name for name in CACHES if holds_tokens(arguments.get(name)))

    def generate(
        self, plan: Plan, evaluator: Evaluator, emit: Emit, arguments: Mapping[str, Any]
    ) -> GuardedOutput:
        """`model.generate(**arguments)` under guard. Raises UnsupportedGeneration and PromptError."""
        batch = self._read(arguments, plan.positions) if plan.positions - {"last"} else None
        return self._generated(plan, evaluator, emit, arguments, batch)

    def _generated(
        self,
        plan: Plan,
        evaluator: Evaluator,
        emit: Emit,
        arguments: Mapping[str, Any],
        batch: Batch | None,
    ) -> GuardedOutput:
        check_generation(arguments, self.inner.generation_config)
        prompts, width = prompt_ids(arguments).shape
        # until the prompt is evaluated no pass may begin: whatever it computes, nothing would have decided on
        with self.turn.taken(barred=True), evaluating(self.identity.modules):
            self.front.put()
            self.instruments.reader(plan)
            self._generation = Generation(self.instruments, plan, evaluator, prompts, width, emit, batch)
            try:
                return self._generation.run(self._generate, arguments)
            finally:
                self._generation = None

    def intercept(self, ask: Ask) -> None:
        """Ask before the model's own `generate` is called, or continuous batching is begun."""
        self.front.intercept([*([] if self.model is self.inner else [self.model]), self.inner], ask)

    def assemble(
        self, arguments: Mapping[str, Any], generated: Generated | None, answers: Mapping[int, str]
    ) -> Any:
        """What `generate` returns for all rows."""
        return assemble(self.local, arguments, generated, answers)

    def batch(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """ids and mask [prompts, tokens], padded on the left, on the model's device."""
        return self.local.padded([prompt.ids for prompt in prompts], left=True)

    def _forward(self, ids: Tensor, mask: Tensor | None) -> Any:
        known = inspect.signature(self.inner.forward).parameters
        extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        if mask is not None and "position_ids" in known:
            extra["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        self.turn.expect()
        return self.inner(input_ids=ids, attention_mask=mask, use_cache=False, **extra)

    def _prefill(self, call: PrefillCall) -> Any:
        assert self._generation is not None, "only a request's own `generate` gets here"
        return self._generation.prefill(call)

    def _step(self) -> None:
        """Before every forward pass of a request's `generate`."""
        if self._generation is not None:
            self._generation.step()

    def close(self) -> None:
        """Take everything off the model again."""
        with self.turn.lock:
            if self._open:
                self._open = False
                self.front.close()
                release(self.blocks)
                # without modules, so that nothing is left in front of them
                self.instruments = Instruments(self.local, *self.instruments.kinds)
