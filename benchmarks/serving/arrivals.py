"""Open-loop arrivals: requests begin when they are due, whatever became of those before them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from time import perf_counter
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Arrived(Generic[T]):
    """One request. `due` is when it should have begun, in seconds of `perf_counter`."""

    due: float
    seen: T


def poisson(count: int, rate: float, seed: int) -> Sequence[float]:
    """When each request is due, in seconds after the start: a Poisson process of `rate` per second."""
    draw = random.Random(seed)
    gaps = [draw.expovariate(rate) if rate < inf else 0.0 for _ in range(count)]
    return list(accumulate(gaps))


async def arrive(
    send: Callable[[int], Awaitable[T]], times: Sequence[float], places: int
) -> Sequence[Arrived[T]]:
    """Send request i at `times[i]`, never more than `places` at once.

    A request that finds no place waits for one and stays due when it was, so that its latency counts the
    wait. With an infinite rate none is due before it has a place: `places` clients ask without a pause.
    """
    room, start, found = asyncio.Semaphore(places), perf_counter(), list[asyncio.Task[Arrived[T]]]()
    closed = not any(times)

    async def one(i: int, due: float) -> Arrived[T]:
        try:
            return Arrived(due, await send(i))
        finally:
            room.release()

    for i, at in enumerate(times):
        await asyncio.sleep(max(start + at - perf_counter(), 0.0))
        await room.acquire()
        found.append(asyncio.create_task(one(i, perf_counter() if closed else start + at)))
    return await asyncio.gather(*found)
