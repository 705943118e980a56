"""Every response is logged with one line and counted. Pure ASGI, in front of everything else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from time import perf_counter

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.serve.keys import caller
from guardrail.serve.logs import FIELDS
from guardrail.serve.metrics import Metrics

log = logging.getLogger("guardrail.serve.requests")

HEADERS = ("action", "policy", "status", "reason", "audit-id", "ticket-id", "lifted")
"""What the guard says in headers `x-guardrail-...`."""
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for every few seconds: counted, and logged only if they fail."""
OTHER = "other"
"""The route of what no route is for. Paths as they were sent are in no log."""


class Observed:
    """Writes down each request when its response has ended, or its client has left."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None, routes: Sequence[BaseRoute] = ()) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Response(send)
        try:
            await self._app(scope, receive, seen.send)
        finally:
            self._note(scope, seen)

    def _note(self, scope: Scope, seen: _Response) -> None:
        route = str(getattr(scope.get("route") or self._meant(scope), "path", OTHER))
        if self._metrics is not None:
            self._metrics.answered(route, seen.status)
        if route not in QUIET or seen.status >= 500:
            log.info("request", extra={FIELDS: _fields(scope, route, seen)})

    def _meant(self, scope: Scope) -> BaseRoute | None:
        """The route of a request that was refused in front of the routes."""
        return next((route for route in self._routes if route.matches(scope)[0] is not Match.NONE), None)


class _Response:
    """What goes by on its way to the client. `status` is 499 if the client left before there was one."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = perf_counter()
        self.status, self.headers = 499, Headers()
        self.first_ms: float | None = None
        self.complete = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        await self._send(message)
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], Headers(raw=message["headers"])
        elif self.first_ms is None:
            self.first_ms = self.ms
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    @property
    def ms(self) -> float:
        """Milliseconds since the request came."""
        return round((perf_counter() - self.begun) * 1e3, 3)


def _fields(scope: Scope, route: str, seen: _Response) -> Mapping[str, object]:
    key = caller(scope)
    fields: dict[str, object] = {"method": scope["method"], "route": route, "http": seen.status}
    fields |= {"ms": seen.ms, "first_ms": seen.first_ms, "key": key and key.name}
    fields |= {name.replace("-", "_"): seen.headers.get(f"x-guardrail-{name}") for name in HEADERS}
    if (guard_ms := seen.headers.get("x-guardrail-ms")) is not None:
        fields["guard_ms"] = float(guard_ms)
    if not seen.complete:
        fields["broken_off"] = True
    return {name: value for name, value in fields.items() if value is not None}
