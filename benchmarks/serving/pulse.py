"""Whether the processes of a measurement were stopped (SIGSTOP): time limits pass then, and nobody works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from typing import Self, TypeVar

import httpx

T = TypeVar("T")
BEAT_S, STOPPED_S = 1.0, 10.0
"""How often to look whether the process runs, and how late such a look is after it was stopped."""


class Pulse:
    """How long the process stood still in a `with` block, at most, in seconds."""

    def __init__(self) -> None:
        self.still = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(BEAT_S)
            self.still = max(self.still, perf_counter() - began - BEAT_S)


async def unstopped(running: Awaitable[T]) -> T | None:
    """What it gives; None if the process was stopped meanwhile."""
    async with Pulse() as pulse:
        try:
            result = await running
        except httpx.HTTPError:
            if pulse.still < STOPPED_S:
                raise
            return None
    return result if pulse.still < STOPPED_S else None
