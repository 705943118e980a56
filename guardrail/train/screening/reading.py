"""From rows of data to samples in tokens, and to what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from guardrail.train.screening.data import Chunk
from guardrail.train.screening.encoding import Encoded
from guardrail.train.screening.rows import BadRow, Sample, Samples
from guardrail.train.screening.store import Row, Store

Encode: TypeAlias = Callable[[Sample], tuple[Encoded, ...]]
"""A sample in tokens. Raises BadRow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """A row that can be measured."""

    number: int
    key: bytes
    sample: Sample
    encoded: tuple[Encoded, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a chunk holds, in the order of rows. `bad` rows have a problem."""

    good: Sequence[Good]
    bad: Sequence[Row]


class Reader:
    """Reads the rows of one data set. `source`: the key that says where a row comes from."""

    def __init__(self, encode: Encode, source: str | None) -> None:
        self._encode, self._samples = encode, Samples(source)

    def read(self, chunk: Chunk, store: Store, wanted: frozenset[int] | None = None) -> Looked:
        """Look at a chunk; `store` knows earlier rows. `wanted`: the numbers of a subset, None for all."""
        good: list[Good] = []
        bad: list[Row] = []
        for number, value in zip(chunk.numbers, chunk.values, strict=True):
            try:
                found = self._samples.read(value)
                if wanted is None or number in wanted:
                    good.append(Good(number=number, key=found.key, sample=found, encoded=self._encode(found)))
            except BadRow as error:
                bad.append(Row(number=number, kind=error.kind, problem=str(error)))
        first = _first(good, store.known([one.key for one in good]))
        bad += [_duplicate(one, first[one.key]) for one in good if first[one.key] != one.number]
        return Looked(
            good=[one for one in good if first[one.key] == one.number], bad=sorted(bad, key=_number)
        )

    def pass_over(self, chunk: Chunk) -> None:
        """Rows that an earlier run has stored: only their shape has to be learnt."""
        for value in chunk.values:
            if self._samples.shape is not None:
                return
            try:
                self._samples.read(value)
            except BadRow:
                continue

    def encoded(self, value: object) -> tuple[Encoded, ...]:
        """The sample in a decoded row, in tokens. Raises BadRow."""
        return self._encode(self._samples.read(value))


def _first(good: Sequence[Good], known: Mapping[bytes, int]) -> Mapping[bytes, int]:
    """The row in which each sample stands first."""
    return {one.key: one.number for one in reversed(good)} | dict(known)


def _number(row: Row) -> int:
    return row.number


def _duplicate(one: Good, first: int) -> Row:
    return Row(number=one.number, kind="duplicate", problem=f"the same prompts and replies as row {first}")
