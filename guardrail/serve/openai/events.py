"""Server-sent events, as the OpenAI API writes them: lines of JSON, and `[DONE]`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from guardrail.serve.errors import explained

DONE = "data: [DONE]\n\n"
BREAKS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
"""Line breaks of Unicode, which JSON leaves as they are. Many clients end a line of an event there."""


class EventStream(StreamingResponse):
    """A response of events. Whatever ends it, the generator and what is `behind` it are closed at once."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[str], headers: Mapping[str, str], behind: AsyncExitStack
    ) -> None:
        # proxies that buffer would hold back the reply
        quiet = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events, headers={**quiet, **headers})
        self._events, self._behind = events, behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._behind, aclosing(self._events):
            await self.stream_response(send)

    async def stream_response(self, send: Send) -> None:
        """Send the head, then every text on its own; the body ends with the text that has `[DONE]`."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        more = True
        async for text in self._events:
            more = not text.endswith(DONE)
            await send({"type": "http.response.body", "body": text.encode("utf-8"), "more_body": more})
        if more:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(data: BaseModel) -> str:
    """One event. Fields that were not set are left out."""
    return f"data: {data.model_dump_json(exclude_unset=True).translate(BREAKS)}\n\n"


async def with_errors(events: AsyncIterator[str]) -> AsyncGenerator[str]:
    """The events; an error that comes when the response has begun is the last one."""
    try:
        async for text in events:
            yield text
    except Exception as error:
        yield f"data: {json.dumps(explained(error).body)}\n\n"
