"""HTTP calls that end in time, whatever the other side does.

httpx bounds each read on its own, so an answer that trickles in would hold its caller for ever. Here one
limit holds for a whole call: for the name, the connection, what is sent, and the head and body of the answer.
Only an event loop can give a call up at any point, so all calls run in one, on a standing thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Self, TypeVar

import httpx

T = TypeVar("T")


class NoAnswer(Exception):
    """The other side cannot be reached, or did not give its whole answer in time, or too long a one."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What the other side answered. `content` is empty if the body was not asked for."""

    status: int
    headers: httpx.Headers
    content: bytes


class Connections:
    """Connections that stay open for further calls, from any thread. Redirects are not followed."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._headers = headers
        self._loop, self._client = _loop(os.getpid()), self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(
        self, url: str, body: bytes, timeout_s: float, limit: int, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to a POST of JSON. A body is read up to `limit` bytes; a limit of 0 leaves it unread.

        Raises NoAnswer after `timeout_s` seconds at the latest, and httpx.InvalidURL or UnicodeError for what
        is not an address.
        """
        self._renewed()
        sent = {"content-type": "application/json", **(headers or {})}
        return _run(_post(self._client, url, body, sent, timeout_s, limit), self._loop)

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        self._renewed()
        _run(self._client.aclose(), self._loop)

    def _opened(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(headers=self._headers, timeout=None, follow_redirects=False)

    def _renewed(self) -> None:
        """A forked process has neither the thread nor the connections of its parent."""
        loop = _loop(os.getpid())
        if loop is not self._loop:
            self._loop, self._client = loop, self._opened()


@cache
def _loop(pid: int) -> asyncio.AbstractEventLoop:
    """The loop of a process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="guardrail-calls", daemon=True).start()
    return loop


def _run(work: Coroutine[None, None, T], loop: asyncio.AbstractEventLoop) -> T:
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        # Ctrl-C ends the wait, and with it the call
        future.cancel()
        raise


async def _post(
    client: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, limit: int
) -> HttpAnswer:
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            content = await _content(response, limit) if limit else b""
            return HttpAnswer(response.status_code, response.headers, content)
    except TimeoutError as error:
        raise NoAnswer(f"did not answer within {timeout_s:g} s") from error
    except httpx.RequestError as error:
        raise NoAnswer(f"cannot be reached: {_reason(error)}") from error


async def _content(response: httpx.Response, limit: int) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > limit:
            raise NoAnswer(f"answered with more than {limit:,} bytes")
    return bytes(content)


def _reason(error: BaseException) -> str:
    """What the system said at the bottom: httpx only says that all attempts failed."""
    root = error
    while deeper := root.__cause__ or root.__context__:
        root = deeper
    return str(root) or str(error) or type(error).__name__
