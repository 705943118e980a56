"""Whose tokens are where in one forward pass of the manager."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from guardrail.engines.transformers.continuous.request import Request


@dataclass(frozen=True, slots=True)
class Row:
    """A piece of one request in a pass: columns [start, end) of all tokens.

    `first`: how many tokens of the request came before. `place`: which of the logits is its next token's,
    None if its prompt goes on in a later pass.
    """

    request: Request
    start: int
    end: int
    first: int
    place: int | None

    @property
    def tokens(self) -> int:
        """How many tokens of the request are in the pass."""
        return self.end - self.start

    @property
    def steered_from(self) -> int:
        """The column of its last prompt token, or its first if that came before."""
        return self.start + max(0, self.request.length - 1 - self.first)


def rows_of(scheduled: Iterable[Any], requests: Mapping[str, Request]) -> list[Row]:
    """The rows of requests that are not over. `scheduled`: what the manager has put into the pass."""
    rows: list[Row] = []
    start = place = 0
    for one in scheduled:
        end = start + one.query_length
        request = requests.get(one.state.request_id)
        if request is not None and not request.over:
            # the manager has already counted this pass
            first = one.state.position_offset - one.query_length
            rows.append(Row(request, start, end, first, place if one.has_new_token else None))
        start, place = end, place + one.has_new_token
    return rows
