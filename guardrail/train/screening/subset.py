"""Draws a random subset of a data set's rows in one look through it, with memory for the subset alone.

Each row gets a number from a hash of its content and the seed, and the lowest are taken: the draw does not
depend on the order of the rows, and duplicates are drawn once.
"""

from __future__ import annotations

import hashlib
import heapq

from guardrail.train.screening.data import Data
from guardrail.train.screening.rows import BadRow, sample


def chosen(data: Data, count: int, seed: int, source: str | None = None) -> frozenset[int]:
    """The numbers of `count` rows, of those that are samples at all; of all of them if there are fewer."""
    heap: list[tuple[int, int]] = []
    held: set[int] = set()
    for chunk in data.chunks():
        for number, value in zip(chunk.numbers, chunk.values, strict=True):
            if (place := _place(value, seed, source)) is None or place in held:
                continue
            held.add(place)
            # a heap of the negated places has the highest of those held on top
            if len(heap) < count:
                heapq.heappush(heap, (-place, number))
            else:
                dropped, _ = heapq.heappushpop(heap, (-place, number))
                held.discard(-dropped)
    return frozenset(number for _, number in heap)


def _place(value: object, seed: int, source: str | None) -> int | None:
    if isinstance(value, BadRow):
        return None
    try:
        key = sample(value, source).key
    except BadRow:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed}/".encode() + key).digest()[:8], "big")
