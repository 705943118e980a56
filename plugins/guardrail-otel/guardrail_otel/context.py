"""Continues the trace of a caller: pure ASGI, in front of the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from opentelemetry import context, propagate, trace

Scope: TypeAlias = Mapping[str, Any]
App: TypeAlias = Callable[[Scope, Any, Any], Awaitable[None]]


class TraceContext:
    """Takes up the context in a request's headers (`traceparent`), unless something did so before."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or trace.get_current_span().get_span_context().is_valid:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        token = context.attach(propagate.extract(headers))
        try:
            await self._app(scope, receive, send)
        finally:
            context.detach(token)
