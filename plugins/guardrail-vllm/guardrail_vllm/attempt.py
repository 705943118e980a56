"""One generation of vLLM that the workers were told to decide on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from time import perf_counter
from typing import Any
from uuid import uuid4

from vllm.exceptions import GracefulHTTPError, VLLMClientError

from guardrail.errors import EvaluationError
from guardrail_vllm.verdicts import Verdicts
from guardrail_vllm.worker.reports import Decided, Ended

GRACE_S = 2.0
"""How long the workers' word may come after what it is about: they use another socket."""
END_S = 10.0
SILENT = "vLLM has answered, and no worker has said what was decided"


class Attempt:
    """`arguments` gives what workers are told, for the key of this attempt. Begins with the first `await`."""

    def __init__(
        self,
        verdicts: Verdicts,
        generate: Callable[[str, dict[str, Any]], AsyncGenerator[Any]],
        arguments: Callable[[str], dict[str, Any]],
    ) -> None:
        key = uuid4().hex
        self._verdicts, self.word = verdicts, verdicts.expect(key)
        self.sent = perf_counter()
        self._outputs = generate(key, arguments(key))
        self._first: asyncio.Task[Any] = asyncio.ensure_future(anext(self._outputs))

    async def decided(self, limit_s: float) -> Decided | None:
        """What a worker did with the prompt; None if `limit_s` is over, counted from when it began.

        Raises EvaluationError if none says so, and what vLLM raises.
        """
        word = self.word
        await _either(self._first, word.begun, word.decided)
        if word.begun.done():
            limit_s = max(0.0, word.begun.result().at + limit_s - perf_counter())
        if not await _either(self._first, word.decided, limit_s=limit_s):
            return None
        if not word.decided.done():
            await self._answered()
        return word.decided.result()

    async def _answered(self) -> None:
        """vLLM was faster than the word, or has failed."""
        error = self._first.exception()
        if error is not None and not isinstance(error, StopAsyncIteration):
            raise error
        if not await _either(self.word.decided, limit_s=GRACE_S):
            raise EvaluationError(SILENT)

    async def ended(self) -> Ended:
        """What a worker says at the end of a reply that it steered or followed. Raises EvaluationError."""
        if not await _either(self.word.ended, limit_s=END_S):
            raise EvaluationError("no worker has said what became of a reply that it steered or followed")
        return self.word.ended.result()

    async def outputs(self) -> AsyncIterator[Any]:
        """vLLM's outputs, the first one too."""
        try:
            yield await self._first
        except StopAsyncIteration:
            return
        async for output in self._outputs:
            yield output

    async def leave(self) -> None:
        """End it; vLLM drops the request."""
        self._verdicts.forget(self.word.key)
        if not self._first.done():
            self._first.cancel()
        await asyncio.wait([self._first])
        if not self._first.cancelled():
            # whatever it was has been told, or nobody wants to know any more
            self._first.exception()
        await self._outputs.aclose()


def is_request_error(error: BaseException) -> bool:
    """Whether vLLM refused the request itself: then the prompt was not sent to the model."""
    return isinstance(error, VLLMClientError | GracefulHTTPError)


async def _either(*futures: asyncio.Future[Any], limit_s: float | None = None) -> bool:
    """Wait for one of them; False if none is there in time."""
    done, _ = await asyncio.wait(futures, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)
