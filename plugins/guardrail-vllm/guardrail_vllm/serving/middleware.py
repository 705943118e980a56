"""The door to vLLM's application: starts the guard before the first request, and adds headers to responses.

Pure ASGI. Until the guard is there every request is refused, so that nothing is served without it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from guardrail.errors import GuardrailError
from guardrail_vllm.serving.calls import Call, enter
from guardrail_vllm.serving.door import Door
from guardrail_vllm.serving.start import opened

log = logging.getLogger("guardrail")

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]
CLOSED = b'{"error": {"message": "the guard is not ready", "type": "server_error", "code": 503}}'


class GuardMiddleware:
    """`--middleware guardrail_vllm.serving.GuardMiddleware`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._door: Door | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._door is None or scope["type"] != "http":
            await _refuse(scope, send)
        else:
            call = Call(headers=_headers(scope))
            enter(call)
            await self._app(scope, receive, _Response(call, send).send)

    async def _live(self, scope: Any, receive: Receive, send: Send) -> None:
        """Open the guard between vLLM's start and its first request; close it after the last one."""

        async def tell(event: Event) -> None:
            if event["type"] == "lifespan.startup.complete":
                event = await self._open(scope["app"].state)
            elif event["type"].startswith("lifespan.shutdown") and self._door is not None:
                await self._door.close()
            await send(event)

        await self._app(scope, receive, tell)

    async def _open(self, state: Any) -> Event:
        try:
            self._door = await opened(state)
        except Exception as error:
            # an exception would leave a server that is up
            known = isinstance(error, GuardrailError)
            log.error("vLLM does not start: %s", error, exc_info=None if known else error)
            return {"type": "lifespan.startup.failed", "message": f"the guard cannot start: {error}"}
        return {"type": "lifespan.startup.complete"}


class _Response:
    """Holds back the head of a response until its body begins: by then there is a decision."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call, self._send = call, send
        self._head: Event | None = None

    async def send(self, event: Event) -> None:
        """Pass an event on."""
        if event["type"] == "http.response.start":
            self._head = event
            return
        if self._head is not None:
            given = [(name.encode(), value.encode()) for name, value in self._call.answer.items()]
            self._head["headers"] = [*self._head.get("headers", ()), *given]
            await self._send(self._head)
            self._head = None
        await self._send(event)


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Several lines of one name are a list: a gateway may add its own tags to those of its client."""
    found = dict[str, str]()
    for name, value in (
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
    ):
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


async def _refuse(scope: Mapping[str, Any], send: Send) -> None:
    if scope["type"] == "websocket":
        # what is spoken there is not guarded
        await send({"type": "websocket.close", "code": 1008})
        return
    head = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": head})
    await send({"type": "http.response.body", "body": CLOSED})
