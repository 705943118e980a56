"""Stands in for `generate` of vLLM's engine client, which every handler of its API calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from guardrail.pipeline.cancellation import Cancellation, on
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.plugin_calls import PluginCalls
from guardrail.pipeline.tickets import MAX_WAITING
from guardrail.types import Decision
from guardrail_vllm.serving.guard import ServedGuard, plan_name
from guardrail_vllm.serving.passage import Passage
from guardrail_vllm.serving.prompts import incoming
from guardrail_vllm.verdicts import Verdicts
from guardrail_vllm.worker.asked import Asked

T = TypeVar("T")
THREADS = 32
"""For what blocks: audit records, actions, scorers."""


class Door:
    """What lets requests through. `inner` is vLLM's own `generate`, to which it hands prompts on.

    `separates`: vLLM's scheduler keeps what is steered out of the prefix cache.
    """

    def __init__(
        self,
        guard: ServedGuard,
        inner: Callable[..., AsyncGenerator[Any]],
        verdicts: Verdicts,
        separates: bool,
    ) -> None:
        self.guard, self.inner, self.verdicts, self.separates = guard, inner, verdicts, separates
        self.calls = PluginCalls()
        # a request that waits for a person keeps its thread
        self._threads = ThreadPoolExecutor(THREADS + MAX_WAITING, "guardrail-request")

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncIterator[Any]:
        """As the engine client's: vLLM's outputs, of which none comes before the decision.

        Raises vLLM's validation error for what cannot be guarded.
        """
        asked = incoming(self.guard, prompt, sampling_params, options.get("lora_request"))
        passage = Passage(self, asked, prompt, sampling_params, request_id, options)
        async with aclosing(passage.outputs()) as outputs:
            async for output in outputs:
                yield output

    def arguments(self, asked: Asked, replies: int, key: str) -> dict[str, Any]:
        """What workers are told with a request for so many replies, and where they say what came of it."""
        group = key if replies > 1 and asked.forced is None else None
        told = replace(asked, key=key, group=group, to=self.verdicts.address)
        return told.arguments(plan_name(asked.plan))

    def late(self, exchange: Exchange, row: int, decision: Decision) -> None:
        """A decision after the time was up, of which workers never tell: their request has been dropped."""

    async def blocking(self, work: Callable[[], T], cancellation: Cancellation) -> T:
        """The result of a call that blocks, on a thread."""
        return await on(self._threads, work, cancellation)

    async def close(self) -> None:
        """Finish, and close the guard."""
        self.verdicts.close()
        await asyncio.to_thread(self.guard.close)
        self.calls.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
