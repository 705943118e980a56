"""What a request may be before anything reads it: its host, size, JSON. And how long a client may take.

Pure ASGI, in front of every route. A body is read here, once, and handed on whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.files.json_text import decoded
from guardrail.serve.errors import Answer, ApiError, explained
from guardrail.serve.headers import listed, single
from guardrail.serve.settings import LOOPBACK, ServerSettings

MAX_VALUES = 200_000
"""In one body: small values take a hundred times the memory of their text, and seconds to look at."""


class Limits:
    """Refuses what is too large or no JSON, and ends the requests of clients that leave or do not read."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, forms: Callable[[str], bool], answer: Answer
    ) -> None:
        self._app, self._settings, self._forms, self._made = app, settings, forms, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_host(Headers(scope=scope), self._settings)
            body = await self._body(scope, receive)
        except ApiError as error:
            response = await self._made(Request(scope), error)
            await response(scope, receive, send)
        except _Gone:
            return
        else:
            await self._answer(scope, _Connection(body, receive, send, self._settings.send_s))

    async def _answer(self, scope: Scope, connection: _Connection) -> None:
        try:
            async with connection.presence:
                watch = asyncio.create_task(connection.watch())
                try:
                    await self._app(scope, connection.receive, connection.send)
                finally:
                    watch.cancel()
        except Exception as error:
            # nothing goes on to the web server, which would log what an error says, and that may be a prompt
            if not connection.presence.expired():
                await connection.fail(scope, await self._made(Request(scope), explained(error)))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises ApiError for one that is compressed, too large, too slow or no JSON.

        Paths to which `forms` go take other bodies, which they look at themselves.
        """
        headers, limit = Headers(scope=scope), self._settings.max_body
        for coding in listed(headers, "content-encoding"):
            if coding.lower() != "identity":
                text = f"Unsupported content encoding: {coding[:40]}. Send the body uncompressed."
                raise ApiError(415, text, code="unsupported_content_encoding")
        if _length(headers) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._settings.send_s):
                body = await _read(receive, limit)
        except TimeoutError:
            text = f"the request did not arrive within {self._settings.send_s:g} s"
            raise ApiError(408, text, code="request_timeout") from None
        if not self._forms(scope["path"]):
            _check_json(headers, body)
        return body


class _Gone(Exception):
    """The client left before its request was whole."""


class _Connection:
    """What the application sees of a client whose body was read."""

    def __init__(self, body: bytes, receive: Receive, send: Send, send_s: float) -> None:
        self._receive, self._send, self._send_s = receive, send, send_s
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self._begun = False
        self.presence = asyncio.timeout(None)
        """Ends what is inside once the client has left."""

    async def receive(self) -> Message:
        """The body, then the end of the connection."""
        if self._body is None:
            await self._left.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """A client that does not read what it was sent in time has left as well."""
        self._begun = True
        patience = asyncio.get_running_loop().call_later(self._send_s, self._leave)
        try:
            await self._send(message)
        finally:
            patience.cancel()

    async def watch(self) -> None:
        """End the request when its client leaves."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._left.set()
        self.presence.reschedule(asyncio.get_running_loop().time())

    async def fail(self, scope: Scope, response: Response) -> None:
        """Answer with an error, if there is no answer yet."""
        if not self._begun:
            await response(scope, self._receive, self._send)


async def _read(receive: Receive, limit: int) -> bytes:
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(parts)


def _length(headers: Headers) -> int:
    given = headers.get("content-length", "0")
    return int(given) if given.isascii() and given.isdigit() else 0


def _too_large(limit: int) -> ApiError:
    text = f"the body is larger than {limit:,} bytes, which is the limit of this server"
    return ApiError(413, text, code="request_too_large")


def _check_kind(headers: Headers) -> None:
    kind = (single(headers, "content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        shown = kind or "none"
        text = f"Unsupported content type: {shown}. Send JSON with `content-type: application/json`."
        raise ApiError(415, text, code="unsupported_content_type")


def _check_json(headers: Headers, body: bytes) -> None:
    """Raises ApiError for a body that is not sound JSON, or is not declared as JSON.

    A web page may send any other type to another server without being asked.
    """
    if not body:
        return
    _check_kind(headers)
    try:
        decoded(body, _unique, MAX_VALUES)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body could not be read: {error}.", code="invalid_json") from None


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    """Raises ValueError for a key that is there twice: others may read the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key `{twice[:40]}` appears twice in one object")
    return found


def _check_host(headers: Headers, settings: ServerSettings) -> None:
    """Raises ApiError for a request that a web page from elsewhere may have sent.

    Without keys, who reaches the port may ask. A page must not do so from the browser of someone who can:
    neither as itself, nor by a name of its own that leads to this machine.
    """
    if settings.keys:
        return
    origin = headers.get("origin")
    if origin is not None and not {origin, "*"} & {*settings.origins, f"http://{headers.get('host')}"}:
        text = "Web pages may not call this server; allow one with --allow-origin."
        raise ApiError(403, text, code="origin_not_allowed")
    if not settings.on_loopback:
        return
    given = headers.get("host", "").lower()
    name = given.rpartition(":")[0] if given.rpartition(":")[2].isdigit() else given
    if name.strip("[]") not in (*LOOPBACK, settings.host, *settings.hosts):
        text = "This server answers to the names of this machine only; allow others with --allow-host."
        raise ApiError(421, text, code="unknown_host")
