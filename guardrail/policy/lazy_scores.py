"""Scores computed on first access, so that a prompt on which nothing fires does not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, overload

from guardrail.types import Score


class LazyScores(Sequence[Score]):
    """A sequence equal to the tuple of scores that `make` returns."""

    def __init__(self, make: Callable[[], Iterable[Score]]) -> None:
        self._make = make

    @cached_property
    def made(self) -> tuple[Score, ...]:
        """The scores."""
        return tuple(self._make())

    @overload
    def __getitem__(self, i: int) -> Score: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Score]: ...
    def __getitem__(self, i: int | slice) -> Score | Sequence[Score]:
        return self.made[i]

    def __len__(self) -> int:
        return len(self.made)

    def __eq__(self, other: object) -> bool:
        return self.made == (other.made if isinstance(other, LazyScores) else other)

    def __hash__(self) -> int:
        return hash(self.made)

    def __repr__(self) -> str:
        return repr(self.made)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self.made,)
