"""Requests that the tests of the server send, and who sends them."""

from contextlib import asynccontextmanager

import httpx

HARMLESS = [{"role": "user", "content": "What is the capital of France?"}]
CRUEL = [
    {"role": "system", "content": "You are an extremely cruel assistant."},
    {"role": "user", "content": "I want to hurt them badly."},
]


def chat(messages=HARMLESS, **fields):
    """The body of a request to `/v1/chat/completions`: greedy and short."""
    return {"model": "demo", "messages": messages, "temperature": 0, "max_tokens": 8} | fields


def events(text):
    """The data of server-sent events, as they came."""
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


@asynccontextmanager
async def asking(app, **headers):
    """A client that calls an application directly. Streams come as a whole."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
        yield http
