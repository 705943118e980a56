"""The result of one guarded call of `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from guardrail.engines import Completion
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.replies import Followed
from guardrail.types import Decision, Timing


@dataclass(kw_only=True)
class GuardedOutput:
    """The result of one call. `output` is what `model.generate` returned for the rows in `kept`, if any.

    `replies`: how each reply went that policies followed, by row. `width`: tokens before the replies.
    """

    decisions: list[Decision]
    kept: list[int]
    output: Any = None
    passes: dict[int, int] = field(default_factory=dict[int, int])
    replies: dict[int, Followed] = field(default_factory=dict[int, Followed])
    timing: Timing = field(default_factory=Timing)
    local: LocalModel
    width: int

    @cached_property
    def completions(self) -> Mapping[int, Completion]:
        """How each row in `kept` ended, its first sample if it has several. Waits for the device."""
        ends = self.local.end_tokens
        return {row: self.completion(row, self.tokens(row, ends)[0]) for row in self.kept}

    def tokens(self, row: int, ends: frozenset[int]) -> list[list[int]]:
        """The tokens of every reply to a prompt in `kept`, up to and with the first of `ends`."""
        sequences = getattr(self.output, "sequences", self.output)
        samples, followed = len(sequences) // len(self.kept), self.replies.get(row, Followed())
        first = self.kept.index(row) * samples
        rows = sequences[first : first + samples, self.width :].tolist()
        # beam search fills rows up with -1 if no token ends them and padding is token 0
        said = [[token for token in ids if token >= 0] for ids in rows]
        return [_until_end(ids, ends)[: followed.kept] for ids in said]

    def completion(self, row: int, ids: list[int]) -> Completion:
        """How a reply to a prompt ended that has these tokens."""
        followed = self.replies.get(row, Followed())
        # a reply that is steered from its prompt on is steered in every pass
        passes = self.passes.get(row, 0) or followed.steered_passes
        return Completion(
            decision=self.decisions[row],
            text=self.local.tokenizer.decode(ids, skip_special_tokens=True),
            new_tokens=len(ids),
            steered_passes=min(passes, max(len(ids), 1)),
            reply_decision=followed.decision,
            turn=followed.turn,
        )


def _until_end(ids: list[int], ends: frozenset[int]) -> list[int]:
    """Up to and with the first end token."""
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: stop + 1]
