"""Replies whose rows are steered each in its own way: small samples of many ways share one batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from torch import Tensor

from guardrail.engines import Continuation
from guardrail.engines.transformers.batches import bucketed
from guardrail.engines.transformers.executor import layer_name, layer_of
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.steering import BatchSteering
from guardrail.extract.subject import Subject
from guardrail.types import Decision, Message, Steering


class MixedSubject(Subject):
    """A Subject that can steer row by row, as the guard does."""

    def mixed_replies(
        self,
        prompts: Sequence[Sequence[Message]],
        steering: Sequence[Sequence[Steering]],
        seeds: Sequence[int],
        new_tokens: int,
    ) -> list[Continuation]:
        """A reply to each prompt, at temperature 1. Steerings that differ need different policies."""
        rows = [list(self.render(messages).ids) for messages in prompts]
        found: dict[int, Continuation] = {}
        for batch in bucketed([len(ids) for ids in rows], self.rows):
            with self._steered([tuple(steering[i]) for i in batch]):
                # as many rows as fit, in order of length: one batch, in this order
                replies = self.continued(
                    [rows[i] for i in batch],
                    max_new_tokens=new_tokens,
                    seeds=[seeds[i] for i in batch],
                    temperature=1.0,
                )
            found |= zip(batch, replies, strict=True)
        return [found[i] for i in range(len(rows))]

    @contextmanager
    def _steered(self, rows: Sequence[tuple[Steering, ...]]) -> Generator[None]:
        decisions = [
            Decision(status="evaluated", action="steer" if row else "allow", steering=row) for row in rows
        ]
        batch = BatchSteering(decisions)

        def visit(name: str, hidden: Tensor) -> bool:
            batch.apply(layer_of(name), hidden[:, -1:])
            return False

        modules = {layer_name(layer): self.blocks[layer - 1] for layer in batch.layers}
        with Hooked(modules).visited(list(modules), visit):
            yield
        if batch.layers and not max(batch.counts):
            raise AssertionError("steering was requested, but no forward pass was steered")
