"""Whose tokens are where in one forward pass, from what vLLM's model runner has put into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guardrail.policy.plan import Plan
from guardrail_vllm.worker.request import Watched


@dataclass(frozen=True, slots=True)
class Layout:
    """A pass over pieces of requests: names, and [requests] each for tokens and positions.

    Request i has the columns starts[i] to ends[i]; firsts[i] of its tokens came before, and lengths[i] are
    its prompt.
    """

    names: Sequence[str]
    starts: Any
    ends: Any
    firsts: Any
    lengths: Any

    @property
    def whole(self) -> Any:
        """[requests]: those whose prompt is complete with this pass, so that they get a token."""
        return self.firsts + self.ends - self.starts >= self.lengths

    @property
    def ending(self) -> Any:
        """[requests]: those whose last prompt token is in this pass."""
        return self.whole & (self.firsts < self.lengths)


@dataclass(frozen=True, slots=True)
class Row:
    """A piece of one request: columns [start, end), of which `first` tokens came before."""

    request: Watched
    start: int
    end: int
    first: int

    @property
    def tokens(self) -> int:
        """How many tokens the piece has."""
        return self.end - self.start

    def column(self, token: int) -> int:
        """The column of a token of the request, if it is in this pass."""
        return self.start + token - self.first

    @property
    def last(self) -> int:
        """The column of the last prompt token, if it is in this pass."""
        return self.column(self.request.length - 1)

    @property
    def steered(self) -> range:
        """The columns from the last prompt token on."""
        return range(max(self.start, self.last), self.end)


@dataclass(slots=True)
class PlanRows:
    """The rows of a pass under one plan.

    `asked`: those to be decided on; `pieces`: of prompts that end in a later pass, if means are taken over
    their tokens; `others`: those that are decided and go on.
    """

    plan: Plan
    asked: list[Row] = field(default_factory=list[Row])
    pieces: list[Row] = field(default_factory=list[Row])
    others: list[Row] = field(default_factory=list[Row])

    @property
    def all(self) -> list[Row]:
        """All of them."""
        return [*self.asked, *self.pieces, *self.others]


def layout(runner: Any) -> Layout:
    """Of vLLM's first model runner, as it stands right before the model is called."""
    batch = runner.input_batch
    count = batch.num_reqs
    bounds = runner.query_start_loc.np[: count + 1]
    return Layout(
        names=batch.req_ids[:count],
        starts=bounds[:-1],
        ends=bounds[1:],
        firsts=np.asarray(batch.num_computed_tokens_cpu[:count]),
        lengths=np.asarray(batch.num_prompt_tokens[:count]),
    )
