"""Signed webhooks: https://www.standardwebhooks.com, whose libraries check them on the other side.

`webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`. The ID stays the same
when a message is sent again, so that a receiver can drop what it has.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Mapping

import httpx

from guardrail.endpoint.calls import Connections, HttpAnswer, NoAnswer
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
    """POST a message once. Raises Undelivered for all but a 2xx status; redirects are not followed."""
    headers = signed(message_id, body, secret, int(time.time()))
    try:
        with Connections() as connections:
            _check(connections.post(url, body, timeout_s, limit=0, headers=headers))
    except NoAnswer as error:
        raise Undelivered(str(error)) from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Undelivered(f"cannot be reached: {error}") from error


def _check(answer: HttpAnswer) -> None:
    if httpx.codes.is_redirect(answer.status):
        raise Undelivered(f"HTTP {answer.status}: redirects are not followed")
    if not httpx.codes.is_success(answer.status):
        raise Undelivered(f"HTTP {answer.status}", retry_after(answer))
