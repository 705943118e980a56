"""One call of `reply`: our sampling options as arguments of `generate`, and its result as completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from guardrail.engines import Completion, Emit, Token
from guardrail.engines.transformers.logprobs import Logprobs
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.output import GuardedOutput
from guardrail.engines.transformers.penalties import Penalties
from guardrail.engines.transformers.reply_text import Ending, ReplyText, StopTexts
from guardrail.engines.transformers.sampling import Seeded, generation_arguments
from guardrail.errors import PromptError
from guardrail.types import Decision, Sampling, TokenLogprob


class Replying:
    """Arguments for `generate` and completions of a batch. `emit`: gets text as it comes, None for nothing.

    Raises PromptError for a bias on a token that the model does not have.
    """

    def __init__(
        self, local: LocalModel, sampling: Sampling, prompts: int, width: int, emit: Emit | None
    ) -> None:
        self.local, self.sampling, self.width, self._emit = local, sampling, width, emit
        if unknown := [token for token, _ in sampling.logit_bias if not 0 <= token < local.vocabulary]:
            text = f"`logit_bias` names the token {unknown[0]}, which this model does not have"
            raise PromptError(text, "logit_bias")
        self.ending = Ending(local.tokenizer, self._ends(), sampling.stops, sampling.special_tokens)
        self._greedy = sampling.temperature == 0 or (
            sampling.temperature is None and not local.inner.generation_config.do_sample
        )
        # greedy replies to one prompt are all the same
        self._samples, self._copies = (1, sampling.n) if self._greedy else (sampling.n, 1)
        self._logprobs = None if sampling.logprobs is None else Logprobs(local.tokenizer, sampling.logprobs)
        self._streamer = RowsStreamer(
            self.ending, prompts * self._samples, self._logprobs, emit, self._copies
        )

    def _ends(self) -> frozenset[int]:
        """The tokens that end a reply: the model's own, and special ones that are a stop text."""
        if not self.sampling.stops:
            return self.local.end_tokens
        tokenizer = self.local.tokenizer
        special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        return self.local.end_tokens | {token for text, token in special if text in self.sampling.stops}

    @property
    def arguments(self) -> dict[str, Any]:
        """What `generate` gets besides the prompts."""
        found = generation_arguments(self.sampling, self.local.inner, self.local.tokenizer)
        if self._samples > 1:
            found["num_return_sequences"] = self._samples
        if self.sampling.stops:
            found["eos_token_id"] = sorted(self.ending.ends)
            found["stopping_criteria"] = StoppingCriteriaList([StopTexts(self.ending, self.width)])
        # the model's own probabilities are taken before anything changes them
        processors: list[LogitsProcessor] = [self._logprobs] if self._logprobs else []
        if self.sampling.extras & {"presence_penalty", "frequency_penalty", "logit_bias"}:
            processors.append(Penalties(self.sampling, self.width))
        if self.sampling.seed is not None and not self._greedy:
            processors.append(Seeded(self.sampling.seed))
        if processors:
            found["logits_processor"] = LogitsProcessorList(processors)
        if self._streamer.needed:
            found["streamer"] = self._streamer
        return found

    def completions(self, result: GuardedOutput) -> list[Completion]:
        """How every prompt ended, also those that were stopped."""
        if self._emit is None:
            # policies that stop one reply of a batch keep the end from all
            self._streamer.end()
        return [
            self._completion(result, row) if row in result.kept else _stopped(decision)
            for row, decision in enumerate(result.decisions)
        ]

    def _completion(self, result: GuardedOutput, row: int) -> Completion:
        rows = [row * self._samples + i for i in range(self._samples)]
        replies = zip(result.tokens(row, self.ending.ends), rows, strict=True)
        first, *others = [self._ended(result, row, ids, self._streamer.logprobs[i]) for ids, i in replies]
        return replace(first, others=(*others, *[first] * (self._copies - 1)))

    def _ended(
        self, result: GuardedOutput, row: int, ids: list[int], logprobs: Sequence[TokenLogprob]
    ) -> Completion:
        kept, text, finish = self.ending.reply(ids)
        made = result.completion(row, list(kept))
        return replace(made, text=text, finish=finish, logprobs=tuple(logprobs))


class RowsStreamer:
    """Gets tokens from `generate`, and knows the text and the log probabilities of every row.

    `emit`: gets text as it comes. `copies`: how often each row is handed out.
    """

    def __init__(
        self, ending: Ending, rows: int, logprobs: Logprobs | None, emit: Emit | None, copies: int
    ) -> None:
        self._source, self._emit, self._copies = logprobs, emit, copies
        self.needed = emit is not None or logprobs is not None
        self.logprobs: list[list[TokenLogprob]] = [[] for _ in range(rows)]
        self._texts = [self._text(ending, row) for row in range(rows)]
        self._prompted = False

    def _text(self, ending: Ending, row: int) -> ReplyText:
        def take(text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
            self.logprobs[row] += logprobs
            if self._emit is not None:
                for copy in range(self._copies):
                    self._emit(Token(text, row * self._copies + copy, logprobs))

        return ReplyText(ending, take)

    def put(self, value: Tensor) -> None:
        """The prompts first, then one token of every row."""
        if not self._prompted:
            self._prompted = True
            return
        found = self._source.taken(value) if self._source else [None] * len(value)
        for text, token, logprob in zip(self._texts, value.tolist(), found, strict=True):
            text.put(token, logprob)

    def end(self) -> None:
        """No token follows."""
        for text in self._texts:
            text.end()


def _stopped(decision: Decision) -> Completion:
    return Completion(decision=decision, text="", new_tokens=0, steered_passes=0)
