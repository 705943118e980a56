"""The states that probes read: those of last prompt tokens, or means over the tokens of turns.

A mean is taken in float32, on the layer's device, over the columns of its tokens alone: padding, the side it
is on and the other rows have no part in it. Columns come from the token ids, so nothing waits for a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from guardrail.engines import Prompt, Span
from guardrail.engines.transformers.ends import Ends
from guardrail.errors import PromptError, UnsupportedGeneration
from guardrail.types import Position

Runs = Sequence[Span]
"""Runs of columns [start, end)."""
HIDDEN = (
    "a policy reads `{}`, and the cache that was given hides some of its tokens: give the whole prompt "
    "without a cache, or a policy whose probe reads `last`"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts, and for each the columns of its tokens, ascending, in a tensor of ids."""

    prompts: Sequence[Prompt]
    columns: Sequence[Sequence[int]]

    @classmethod
    def left_padded(cls, prompts: Sequence[Prompt]) -> Batch:
        """Prompts of which each ends in the last column."""
        width = max(len(prompt.ids) for prompt in prompts)
        return cls(prompts, [range(width - len(prompt.ids), width) for prompt in prompts])

    def runs(self, positions: Iterable[Position], first: int = 0) -> dict[Position, list[Runs]]:
        """What each position reads of each prompt, in columns counted from `first`.

        Raises UnsupportedGeneration for tokens before `first`, and PromptError for spans that nobody found.
        """
        pairs = list(zip(self.prompts, self.columns, strict=True))
        return {p: [_runs(p, *pair, first) for pair in pairs] for p in positions if p != "last"}


def _runs(position: Position, prompt: Prompt, columns: Sequence[int], first: int) -> Runs:
    if position not in prompt.spans:
        raise PromptError(f"a policy reads `{position}`, and its tokens are not known in this prompt")
    found = [run for start, end in prompt.spans[position] for run in _adjacent(columns[start:end])]
    # the first token of a prompt is before the pass as soon as anything is
    if any(start < first for start, _ in found):
        raise UnsupportedGeneration(HIDDEN.format(position))
    return [(start - first, end - first) for start, end in found]


def _adjacent(columns: Sequence[int]) -> list[Span]:
    """Columns as runs; a mask may leave some out in the middle."""
    if len(columns) == 0 or columns[-1] - columns[0] == len(columns) - 1:
        return [(columns[0], columns[-1] + 1)] if columns else []
    groups = groupby(enumerate(columns), lambda pair: pair[1] - pair[0])
    runs = [[column for _, column in group] for _, group in groups]
    return [(run[0], run[-1] + 1) for run in runs]


class Pools:
    """The states of the prompts in one forward pass, with `expand` rows for each (beams, samples)."""

    def __init__(
        self, ends: Ends, prompts: int, expand: int = 1, runs: Mapping[Position, Sequence[Runs]] | None = None
    ) -> None:
        self.ends, self.prompts, self.expand = ends, prompts, expand
        self._runs = runs or {}
        self._nothing: dict[Position, list[bool]] = {"last": [False] * prompts}
        self._nothing |= {position: [not run for run in rows] for position, rows in self._runs.items()}

    def at(self, position: Position, hidden: Tensor) -> Tensor:
        """States [prompts, d_model] of hidden [rows, columns, d_model]. Zeros if there is nothing to read."""
        # beams and samples of a prompt are equal until the first token: one row of them is enough
        if position == "last":
            states = self.ends.at(hidden)
            return states if self.expand == 1 else states[:: self.expand]
        rows = enumerate(self._runs[position])
        return torch.stack([_mean(hidden[i * self.expand], runs) for i, runs in rows])

    def nothing(self, position: Position) -> list[bool]:
        """[prompts]: whether a prompt has nothing to read."""
        return self._nothing[position]


def _mean(states: Tensor, runs: Runs) -> Tensor:
    """[d_model] float32, for the states [columns, d_model] of one row."""
    parts = [states[start:end] for start, end in runs]
    if not parts:
        return states.new_zeros(states.shape[1], dtype=torch.float32)
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.mean(0, dtype=torch.float32)
