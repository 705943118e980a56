"""The engine `vllm`: vLLM computes, batches and caches; its workers read, decide and steer.

Requests of many threads share vLLM's passes. A blocked prompt gets no visible token and frees its place at
once. The model is loaded by vLLM, and by nobody else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from guardrail.engines import Completion, Emit, Evaluator, Prompt
from guardrail.engines.transformers.rendering import Renderer
from guardrail.engines.transformers.reply_text import Ending
from guardrail.errors import ModelError, PromptError, UnsupportedGeneration
from guardrail.policy.plan import Plan
from guardrail.types import (
    POSITIONS,
    Configuration,
    Fingerprint,
    Message,
    Position,
    RawPrompt,
    Sampling,
)
from guardrail.types.sampling import EXTRAS
from guardrail_vllm.backend import Backend
from guardrail_vllm.calls import Call
from guardrail_vllm.fingerprint import configuration, fingerprint
from guardrail_vllm.item import Item
from guardrail_vllm.model import VllmModel, load
from guardrail_vllm.plan_limits import check_plan
from guardrail_vllm.said import Said
from guardrail_vllm.sampling import Defaults, LogprobReader, check
from guardrail_vllm.worker.asked import Asked

ROWS = 256
"""How many threads may ask at once."""


class VllmEngine:
    """Guards a model that vLLM runs. Raises ModelError for what cannot be loaded or guarded."""

    positions: frozenset[Position] = frozenset(POSITIONS)
    sampling_options = frozenset(EXTRAS)
    concurrency = ROWS

    def __init__(
        self,
        model: VllmModel,
        tokenizer: Any,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._renderer = Renderer(tokenizer, chat_template, template_arguments)
        self._backend = Backend(model)
        try:
            self.fingerprint: Fingerprint = fingerprint(self._backend.config, self._renderer)
            self._defaults = Defaults(_generation_config(self._backend.config), tokenizer)
        except BaseException:
            self.close()
            raise

    @classmethod
    def around(
        cls,
        model: object,
        tokenizer: object,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> Self:
        """Around a model's name or a `VllmModel`. Raises ModelError for a model that is loaded already."""
        if isinstance(model, str):
            model, own = load(model, {})
            tokenizer = tokenizer or own
        if not isinstance(model, VllmModel):
            raise ModelError(
                f"vLLM loads its models itself, and this is a {type(model).__name__}: "
                "Guard.from_pretrained(NAME, engine='vllm')"
            )
        return cls(model, tokenizer, chat_template, template_arguments)

    @property
    def backend(self) -> Backend:
        """vLLM."""
        return self._backend

    @property
    def max_tokens(self) -> int:
        """The longest sequence that vLLM takes."""
        return int(self._backend.config.model_config.max_model_len)

    @property
    def chat_template(self) -> str:
        """The chat template in use."""
        return self._renderer.template

    @property
    def configuration(self) -> Configuration:
        """How vLLM runs the model."""
        return configuration(self._backend.config, self.fingerprint)

    def accept(self, plan: Plan) -> None:
        """Send a plan to all workers. Raises ModelError for one that vLLM cannot carry out."""
        check_plan(plan)
        self._renderer.check(plan.positions)
        self._backend.know(plan)
        self._backend.tidy()

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        positions: Collection[Position] = (),
    ) -> Prompt:
        """The prompt's ids. Raises PromptError if the chat template refuses the messages."""
        return self._renderer.render(messages, tools, positions)

    def raw(self, prompt: RawPrompt, positions: Collection[Position] = ()) -> Prompt:
        """The prompt's ids for a text that no template renders. Raises PromptError."""
        return self._renderer.raw(prompt, self.fingerprint.vocab_size, positions)

    def check(self, prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> None:
        """Decide on prompts and generate nothing."""
        with Call(self._backend, plan, evaluator, emit) as call:
            items = [
                self._item(call, prompts, row, plan, evaluator, Sampling(max_new_tokens=1), checks=True)
                for row in range(len(prompts))
            ]
            for _ in call.steps(items):
                pass

    def reply(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        evaluator: Evaluator,
        sampling: Sampling,
        emit: Emit,
        stream: bool = False,
    ) -> Sequence[Completion]:
        """Decide on prompts and answer those that go on. `stream` (one row) emits text as it comes."""
        check(sampling, self.fingerprint.vocab_size)
        if sampling.n > 1 and plan.reply_probes:
            raise UnsupportedGeneration(
                "several replies to a prompt (`n`) cannot be followed by response policies"
            )
        # greedy replies to one prompt are all the same
        samples = sampling.n if self._defaults.samples(sampling) else 1
        with Call(self._backend, plan, evaluator, emit) as call:
            items = [
                self._item(call, prompts, row, plan, evaluator, sampling, number, stream)
                for row in range(len(prompts))
                for number in range(samples)
            ]
            said = [
                self._said(i, i % samples, sampling, samples, emit if stream else None)
                for i in range(len(items))
            ]
            for _ in call.steps(items):
                if stream:
                    self._grow(call, said)
            found = [
                one.completions(item := call.items[one.place], call.decisions[item.row], evaluator)
                for one in said
            ]
        return [_together(found[i * samples : (i + 1) * samples]) for i in range(len(prompts))]

    def _grow(self, call: Call, said: Sequence[Said]) -> None:
        for one in said:
            item = call.items[one.place]
            if not call.decisions[item.row].stops:
                one.grow(item)

    def _item(
        self,
        call: Call,
        prompts: Sequence[Prompt],
        row: int,
        plan: Plan,
        evaluator: Evaluator,
        sampling: Sampling,
        number: int = 0,
        pieces: bool = False,
        checks: bool = False,
    ) -> Item:
        ids = prompts[row].ids
        if not 0 < len(ids) < self.max_tokens:
            raise PromptError(f"a prompt of {len(ids)} tokens does not fit: vLLM takes {self.max_tokens - 1}")
        watch = evaluator.watch(row)
        asked = Asked(
            key="",
            plan=plan,
            facts=evaluator.facts(row),
            group=f"{call.name}-{row}" if sampling.n > 1 else None,
            check=checks,
            turn=watch.turn,
            spans=prompts[row].spans,
        )
        parameters = self._defaults.parameters(sampling, self.max_tokens - len(ids), number, pieces)
        parameters.skip_reading_prefix_cache = asked.reads_means
        return Item(row, ids, parameters, asked, call.told, bool(plan.reply_probes) and watch.anything)

    def _said(self, place: int, number: int, sampling: Sampling, samples: int, emit: Emit | None) -> Said:
        ends = self._defaults.ends_with(sampling.stops)
        ending = Ending(self.tokenizer, ends, sampling.stops, sampling.special_tokens)
        copies = sampling.n // samples
        reader = None if sampling.logprobs is None else LogprobReader(self.tokenizer, sampling.logprobs)
        return Said(place, range(number * copies, (number + 1) * copies), ending, reader, emit)

    def close(self) -> None:
        """End vLLM."""
        self._backend.close()


def _generation_config(config: Any) -> Any:
    """The model's own generation config, else what its configuration says."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(
            config.model_config.model, revision=config.model_config.revision
        )
    except OSError:
        return GenerationConfig.from_model_config(config.model_config.hf_config)


def _together(replies: Sequence[Sequence[Completion]]) -> Completion:
    """The replies to one prompt."""
    first, *others = [completion for one in replies for completion in one]
    return replace(first, others=tuple(others))
