"""The engine that batches: requests of many callers share their forward passes.

Prompts and replies are computed by transformers' continuous batching, one pass for all. What the guard does
to each is the same as in the other engines. `generate` is not batched: it has the model to itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from guardrail.engines import Completion, Emit, Evaluator, Prompt
from guardrail.engines.transformers.blocks import text_config
from guardrail.engines.transformers.continuous import trial
from guardrail.engines.transformers.continuous.batches import Batches
from guardrail.engines.transformers.continuous.calls import Call, Once
from guardrail.engines.transformers.continuous.choosing import Chooser
from guardrail.engines.transformers.continuous.manager import Manager
from guardrail.engines.transformers.continuous.passes import Passes
from guardrail.engines.transformers.continuous.request import Request
from guardrail.engines.transformers.continuous.said import Said
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.self_test import SHORT
from guardrail.errors import ModelError, PromptError, UnsupportedGeneration
from guardrail.policy.plan import Plan
from guardrail.types import Sampling

ROWS = 64
"""How many requests are computed in one pass at most, and how many threads may ask."""

INSTEAD = "use the engine that answers one request after another, `transformers` (--engine transformers)"


class BatchingEngine(TransformersEngine):
    """As `TransformersEngine`; `check` and `reply` are called from many threads, whose rows are batched.

    Raises ModelError for models that transformers cannot batch.
    """

    name = "transformers-batching"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(model, tokenizer, chat_template, template_arguments, Hooked, Hooked)
        self._batches: Batches | None = None
        try:
            self._passes = Passes(self.local, self.front, lambda: self.identity.modules)
            self._batches = Batches(partial(Manager, self.local, ROWS), self._passes.run)
            self._try()
        except ModelError as error:
            self.close()
            raise ModelError(f"{error}; or {INSTEAD}") from error
        except BaseException:
            self.close()
            raise

    def _try(self) -> None:
        """Raises ModelError for a model that is read differently in a batch."""
        if self.local.switches and self.max_tokens > self.local.switches[0]:
            raise ModelError(
                f"{type(self.inner).__name__} reads all that is in a pass in another way if one text in it "
                f"has more than {self.local.switches[0]} tokens (longrope)"
            )
        ids, config = self.local.trial, text_config(self.inner)
        prompts = [Prompt(tuple(ids)), Prompt(tuple(ids[:SHORT]))]
        sizes = int(config.num_hidden_layers), int(config.hidden_size)
        trial.run(type(self.inner).__name__, self.check, super().check, prompts, *sizes, self.inner.dtype)

    @property
    def concurrency(self) -> int:
        """How many threads may call `check` and `reply` at once."""
        return ROWS

    @property
    def batches(self) -> Batches:
        """The requests under way."""
        assert self._batches is not None
        return self._batches

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model takes, and the cache has room for."""
        return min(self.local.max_tokens, self.batches.manager.tokens)

    def accept(self, plan: Plan) -> None:
        """As in the other engines. Raises ModelError for steering below what is read in a sliding window."""
        if plan.may_recompute and self.batches.manager.slides:
            raise ModelError(
                "this engine cannot steer below the last layer read in a model with a sliding window; steer "
                f"at or above it, or {INSTEAD}"
            )
        super().accept(plan)
        self._passes.readers.keep([plan, *(request.plan for request in self.batches.requests)])

    def check(self, prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> None:
        """Decide on prompts and generate nothing: a pass of checks alone ends at the last layer read."""
        with Call(self.batches, self.turn, emit) as call:
            for _ in call.steps(self._requests(prompts, plan, evaluator, None, call)):
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
        with Call(self.batches, self.turn, emit) as call:
            requests = self._requests(prompts, plan, evaluator, sampling, call, stream)
            samples = len(requests) // len(prompts)
            copies = sampling.n // samples
            said = [
                Said(
                    request, range(i % samples * copies, (i % samples + 1) * copies), emit if stream else None
                )
                for i, request in enumerate(requests)
            ]
            for _ in call.steps(requests):
                if stream:
                    _grow(said)
            found = [one.completions() for one in said]
        return [_together(found[i * samples : (i + 1) * samples]) for i in range(len(prompts))]

    def _requests(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        evaluator: Evaluator,
        sampling: Sampling | None,
        call: Call,
        stream: bool = False,
    ) -> list[Request]:
        """One for each reply, those of a prompt one after another."""
        for prompt in prompts:
            self._check_prompt(prompt, plan)
        several = sampling is not None and sampling.n > 1
        asked: Evaluator = Once(evaluator) if several else evaluator  # pyright: ignore[reportAssignmentType]

        def request(row: int, number: int = 0) -> Request:
            ids = prompts[row].ids
            most = self.batches.manager.tokens - len(ids)
            chooser = Chooser(self.local, ids, sampling, most, number) if sampling else None
            return Request(
                prompt=prompts[row],
                plan=plan,
                evaluator=asked,
                row=row,
                chooser=chooser,
                told=call.told,
                streams=stream,
            )

        found: list[Request] = []
        for row in range(len(prompts)):
            first = request(row)
            # greedy replies to one prompt are all the same
            samples = sampling.n if sampling and first.chooser and first.chooser.samples else 1
            found += [first, *[request(row, number) for number in range(1, samples)]]
        if len(found) > len(prompts) and plan.reply_probes:
            raise UnsupportedGeneration(
                "several replies to a prompt (`n`) cannot be followed by response policies"
            )
        return found

    def _check_prompt(self, prompt: Prompt, plan: Plan) -> None:
        if missing := sorted(plan.positions - {"last", *prompt.spans}):
            raise PromptError(f"a policy reads `{missing[0]}`, and its tokens are not known in this prompt")
        if not 0 < len(prompt.ids) < self.batches.manager.tokens:
            raise PromptError(f"a prompt of {len(prompt.ids)} tokens does not fit into the cache of batches")

    def close(self) -> None:
        """End the batches, and take everything off the model again."""
        if self._batches is not None:
            self._batches.close()
        super().close()


def _grow(said: Sequence[Said]) -> None:
    for one in said:
        one.grow()


def _together(replies: Sequence[Sequence[Completion]]) -> Completion:
    """The replies to one prompt."""
    first, *others = [completion for one in replies for completion in one]
    return replace(first, others=tuple(others))
