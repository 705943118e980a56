"""One request over HTTP, and what its client saw of the answer, at which times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import httpx

CHAT = "/v1/chat/completions"
DONE = "[DONE]"
TIMEOUT = httpx.Timeout(120.0)


@dataclass(slots=True)
class Seen:
    """An answer, as far as it came. Times in seconds of `perf_counter`; `first` is the first word."""

    sent: float
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    finish: str | None = None
    tokens: int = 0
    error: str | None = None
    """The kind of the error: the code of the body, or how the connection failed."""
    whole: bool = False
    """Whether the client has the whole answer."""
    first: float | None = None
    end: float = 0.0

    @property
    def outcome(self) -> str:
        """In one word: `ok`, or the kind of the error."""
        return "ok" if self.status == 200 and self.whole and not self.error else self.error or "cut off"

    @property
    def action(self) -> str:
        """What the guard did."""
        return self.headers.get("x-guardrail-action", "")

    @property
    def audit_id(self) -> str:
        """The id of the audit record."""
        return self.headers.get("x-guardrail-audit-id", "")

    @property
    def ticket_id(self) -> str:
        """The id of the ticket."""
        return self.headers.get("x-guardrail-ticket-id", "")


def client(url: str, **headers: str) -> httpx.AsyncClient:
    """A client without limits of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=TIMEOUT, headers=headers, trust_env=False)


async def ask(
    http: httpx.AsyncClient, body: Mapping[str, Any], headers: Mapping[str, str], pause: float = 0.0
) -> Seen:
    """Ask, and read the answer to its end, with a `pause` in seconds after each event that has text."""
    seen = Seen(perf_counter())
    try:
        async with http.stream("POST", CHAT, json=body, headers=headers) as response:
            seen.status, seen.headers = response.status_code, response.headers
            await _read(response, seen, pause)
    except httpx.HTTPError as error:
        seen.error = type(error).__name__
    seen.end = perf_counter()
    return seen


async def _read(response: httpx.Response, seen: Seen, pause: float) -> None:
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        await _read_events(response.aiter_lines(), seen, pause)
    else:
        _read_body(json.loads(await response.aread()), seen)


def _read_body(body: Mapping[str, Any], seen: Seen) -> None:
    seen.whole, seen.first = True, perf_counter()
    if "error" in body:
        seen.error = _kind(body["error"])
        return
    (choice,) = body["choices"]
    seen.text, seen.finish = choice["message"]["content"], choice["finish_reason"]
    seen.tokens = body["usage"]["completion_tokens"]


async def _read_events(lines: AsyncIterator[str], seen: Seen, pause: float) -> None:
    async for line in lines:
        data = line.removeprefix("data: ")
        if data == DONE:
            seen.whole = True
        elif data and line != data:
            _read_event(json.loads(data), seen)
            if pause and seen.first is not None:
                await asyncio.sleep(pause)


def _read_event(event: Mapping[str, Any], seen: Seen) -> None:
    if "error" in event:
        seen.error = _kind(event["error"])
    for choice in event.get("choices", ()):
        if said := choice["delta"].get("content"):
            seen.first = seen.first or perf_counter()
            seen.text += said
        seen.finish = choice["finish_reason"] or seen.finish
    if usage := event.get("usage"):
        seen.tokens = usage["completion_tokens"]


def _kind(error: Mapping[str, Any]) -> str:
    return str(error["code"] or error["type"])
