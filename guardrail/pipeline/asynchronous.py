"""The async forms of requests. They run in a thread; cancelling the task ends the generation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from guardrail.pipeline.cancellation import in_thread
from guardrail.pipeline.stream import ReplyStream
from guardrail.types import Check, Messages, Reply


class Requests(Protocol):
    """The forms that block."""

    @property
    def chat(self) -> Callable[..., Reply]: ...
    @property
    def check(self) -> Callable[..., Check]: ...
    @property
    def stream(self) -> Callable[..., ReplyStream]: ...


class AsyncRequests:
    """`achat`, `acheck` and `astream`, for a class that has the forms that block."""

    async def achat(self: Requests, messages: Messages | str, **options: Any) -> Reply:
        """`chat`, without blocking the event loop. Cancelling the task ends the generation."""
        return await in_thread(self.chat, messages, **options)

    async def acheck(self: Requests, messages: Messages | str, **options: Any) -> Check:
        """`check`, without blocking the event loop."""
        return await in_thread(self.check, messages, **options)

    async def astream(self: Requests, messages: Messages | str, **options: Any) -> AsyncIterator[str]:
        """`stream`, without blocking the event loop. Cancelling the task ends the generation."""
        stream = self.stream(messages, **options)
        try:
            while (piece := await in_thread(next, stream, None)) is not None:
                yield piece
        finally:
            stream.close()
