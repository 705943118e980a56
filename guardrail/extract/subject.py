"""A local model for extraction and evaluation: generates replies and reads states, without a guard."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from guardrail.engines import Continuation, Prompt, Span
from guardrail.engines.transformers.lengths import batched
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.errors import PromptError
from guardrail.extract.jobs import Generation, Local, Pooling, Runner
from guardrail.types import Array, Message, Position, Steering

ROWS = 64
"""The default number of rows in a batch."""
CPU_TOKENS = 1024
"""How many tokens a CPU reads at a time; larger batches no longer fit its caches."""


class Subject:
    """A model with its tokenizer and chat template. `rows` is the largest batch size.

    `runner` computes batches: this model, unless another is put there, whose workers hold the same model.
    Raises ModelError for models that cannot be guarded, because vectors for them would be useless.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
        rows: int = ROWS,
    ) -> None:
        self.local = LocalModel(model, tokenizer, chat_template, template_arguments)
        self.model, self.tokenizer, self.rows = model, tokenizer, rows
        self.blocks, self.fingerprint = self.local.blocks, self.local.fingerprint
        self.activations = self.local.activations
        self.runner: Runner = Local(self)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str | None = None,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
        rows: int = ROWS,
    ) -> Self:
        """Load a hub id, a folder, or `demo`. Without `device`: on the GPU if there is one.

        Float32 on the CPU, the dtype of the files elsewhere. Raises ModelError if loading fails.
        """
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        loaded, tokenizer = load_pretrained(model, {"dtype": torch.float32} if place == "cpu" else {})
        return cls(
            loaded.to(place),
            tokenizer,
            chat_template=chat_template,
            template_arguments=template_arguments,
            rows=rows,
        )

    @property
    def layers(self) -> int:
        """The number of decoder blocks."""
        return self.fingerprint.layers

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.fingerprint.d_model

    @property
    def device(self) -> torch.device:
        """The device for token ids."""
        return self.local.device

    @property
    def longest(self) -> int:
        """The longest sequence that the model takes."""
        return self.local.max_tokens

    def render(self, messages: Sequence[Message], positions: Collection[Position] = ()) -> Prompt:
        """The prompt's ids, up to where the reply begins, and the spans of `positions`.

        Raises PromptError if the template refuses, or if the tokens of a position cannot be found.
        """
        return self.local.render(messages, positions)

    def replies(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        steering: Sequence[Steering] = (),
    ) -> list[Continuation]:
        """A reply to each prompt, greedy at temperature 0. A row's samples depend only on its own seed.

        The model's own generation config only provides the end tokens: no penalty, no top-k.
        """
        encoded = [self._fitting(self.render(messages).ids, max_new_tokens) for messages in prompts]
        return self.continued(
            encoded,
            seeds=seeds,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            steering=steering,
        )

    def continued(
        self,
        rows: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        seeds: Sequence[int] | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        steering: Sequence[Steering] = (),
    ) -> list[Continuation]:
        """As `replies`, to prompts that are token ids already. Greedy by default, and then without seeds."""
        drawn = seeds or [0] * len(rows)
        batches = list(self.batches([len(ids) for ids in rows], math.inf, max_new_tokens))
        jobs = [
            Generation(
                rows=[rows[i] for i in batch],
                seeds=[drawn[i] for i in batch],
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                steering=steering,
            )
            for batch in batches
        ]
        found: dict[int, Continuation] = {}
        for batch, replies in zip(batches, self.runner.map(jobs), strict=True):
            found |= zip(batch, replies, strict=True)
        return [found[i] for i in range(len(rows))]

    def _fitting(self, ids: Sequence[int], new_tokens: int) -> Sequence[int]:
        if len(ids) + new_tokens > self.longest:
            raise PromptError(
                f"a prompt of {len(ids)} tokens and {new_tokens} new ones exceed the model's {self.longest}"
            )
        return ids

    def prompt_states(self, prompts: Sequence[Sequence[Message]]) -> Array:
        """[n, L + 1, d_model] float32: the last prompt token at every layer, row 0 the embedding output."""
        rows = [self.render(messages).ids for messages in prompts]
        return self.means(rows, [[(len(ids) - 1, len(ids))] for ids in rows])[:, 0]

    def states(self, prompts: Sequence[Prompt], positions: Sequence[Position]) -> Array:
        """[n, positions, L + 1, d_model] float32, as the guard reads prompts rendered with these positions.

        NaN where a prompt has nothing to read (only for `tool_mean`).
        """
        runs = [[prompt.spans[position] for position in positions] for prompt in prompts]
        found = self._pooled([prompt.ids for prompt in prompts], runs)
        found[np.array([[not spans for spans in row] for row in runs], bool)] = np.nan
        return found

    def read(
        self, prompts: Sequence[Sequence[Message]], positions: Sequence[Position]
    ) -> dict[Position, Array]:
        """[n, L + 1, d_model] float32 at each position, as the guard reads these conversations."""
        found = self.states([self.render(messages, positions) for messages in prompts], positions)
        return {position: found[:, i] for i, position in enumerate(positions)}

    def batches(
        self, lengths: Sequence[int], tokens: float | None = None, room: int = 0
    ) -> Iterator[list[int]]:
        """Indices of rows of these lengths, in batches to compute at once, of so many `tokens` at most.

        room: how many tokens may be added to each row.
        """
        if tokens is None:
            tokens = CPU_TOKENS if self.device.type == "cpu" else math.inf
        return batched(lengths, self.rows, tokens, self.local.switches, room)

    def means(self, rows: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]]) -> Array:
        """[n, spans, L + 1, d_model] float32: mean states over each row's spans [start, end) of tokens.

        An empty span gives zeros. Every row has the same number of spans.
        """
        return self._pooled(rows, [[(span,) for span in row] for row in spans])

    def _pooled(self, rows: Sequence[Sequence[int]], runs: Sequence[Sequence[Sequence[Span]]]) -> Array:
        """[n, k, L + 1, d_model] float32: the means over k sets of runs of tokens in each row.

        One forward pass per batch; memory holds one layer of one batch at a time.
        """
        count = len(runs[0]) if runs else 0
        means = np.zeros((len(rows), count, self.layers + 1, self.d_model), np.float32)
        batches = list(self.batches([len(ids) for ids in rows]))
        jobs = [Pooling(rows=[rows[i] for i in batch], runs=[runs[i] for i in batch]) for batch in batches]
        for batch, found in zip(batches, self.runner.map(jobs), strict=True):
            means[batch] = found
        return means
