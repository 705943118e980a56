"""Signed webhooks: https://www.standardwebhooks.com, whose libraries check them on the other side.

`webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`. The ID stays the same
when a message is sent again, so that a receiver can drop what it has.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Mapping

import httpx

from guardrail.endpoint.refusals import retry_after
from guardrail.errors import ConfigError

PREFIX = "whsec_"
LEAST = 16
"""Bytes of a secret."""


class Undelivered(Exception):
    """The receiver did not take a message. `retry_after` is the wait in seconds that it asked for."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


def secret_from(variable: str) -> bytes:
    """The secret in an environment variable: text, or `whsec_` and base64. No ConfigError shows it."""
    text = os.environ.get(variable, "").strip()
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    secret = secret if text.startswith(PREFIX) else text.encode()
    if len(secret) < LEAST:
        raise ConfigError(f"${variable} must hold a secret of at least {LEAST} bytes")
    return secret


def signed(message_id: str, body: bytes, secret: bytes, timestamp: int) -> Mapping[str, str]:
    """The headers of a message. `timestamp` is a Unix time in seconds."""
    content = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{digest}",
        "idempotency-key": message_id,
    }


def send(url: str, message_id: str, body: bytes, secret: bytes, timeout_s: float) -> None:
    """POST a message once. Raises Undelivered for all but a 2xx status; redirects are not followed.

    Not for threads that run an event loop.
    """
    headers = signed(message_id, body, secret, int(time.time()))
    try:
        asyncio.run(_posted(url, body, headers, timeout_s))
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Undelivered(f"did not answer within {timeout_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Undelivered(f"cannot be reached: {str(error) or type(error).__name__}") from error


async def _posted(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
    # httpx bounds each read, and a receiver that trickles bytes would hold the thread for ever
    async with (
        asyncio.timeout(timeout_s),
        httpx.AsyncClient(timeout=timeout_s, follow_redirects=False) as client,
        client.stream("POST", url, content=body, headers=headers) as response,
    ):
        _check(response)


def _check(response: httpx.Response) -> None:
    if response.is_redirect:
        raise Undelivered(f"HTTP {response.status_code}: redirects are not followed")
    if not response.is_success:
        raise Undelivered(f"HTTP {response.status_code}", retry_after(response))
