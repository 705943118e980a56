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
        return {row: self._completion(row) for row in self.kept}

    def _completion(self, row: int) -> Completion:
        sequences = getattr(self.output, "sequences", self.output)
        samples = len(sequences) // len(self.kept)
        followed = self.replies.get(row, Followed())
        ids = sequences[self.kept.index(row) * samples][self.width :].tolist()
        ids = _until_end(ids, self.local.end_tokens)[: followed.kept]
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
