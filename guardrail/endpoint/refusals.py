"""Explains why an endpoint did not answer and whether a retry may help. Never shows a key."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from guardrail.endpoint.calls import HttpAnswer
from guardrail.errors import ConfigError

TRANSIENT = frozenset({408, 409, 425, 429})
MAX_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong. `retry_after` is the wait that the endpoint asked for, in seconds."""

    message: str
    status: int | None = None
    retry_after: float | None = None
    transient: bool = False


class Transient(Exception):
    """An attempt failed, but another one may succeed."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.failure = Failure(message, status, transient=True)
        super().__init__(message)

    @classmethod
    def of(cls, failure: Failure) -> Self:
        """An exception for a failure that is already described."""
        transient = cls(failure.message, failure.status)
        transient.failure = failure
        return transient


def key_from(variable: str) -> str:
    """The key in an environment variable, or "" without one. The ConfigError for a bad key never shows it."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in ${variable} contains characters that are not allowed in an HTTP header"
        )
    return key


def shown_url(url: str) -> str:
    """The address without user and password. Raises ConfigError if it is not an HTTP address."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url!r} is not an address: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r} is not an HTTP address; expected one such as http://localhost:8000/v1")
    return str(parsed.copy_with(username=None, password=None, query=None))


def failure_of(answer: HttpAnswer, variable: str, *, has_key: bool) -> Failure:
    """The failure behind a status other than 200."""
    status, said = answer.status, _said(answer.content)
    if status in (401, 403):
        key = f"the key in ${variable}" if has_key else f"the request (${variable} is not set)"
        return Failure(f"refuses {key}: HTTP {status}{said}", status)
    if status == 429:
        return Failure(f"limits the rate: HTTP 429{said}", status, retry_after(answer), transient=True)
    if status in TRANSIENT or status >= 500:
        return Failure(f"failed: HTTP {status}{said}", status, retry_after(answer), transient=True)
    if status == 404:
        return Failure(f"knows no such model or address: HTTP 404{said}", status)
    return Failure(f"refuses the request: HTTP {status}{said}", status)


def _said(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    with suppress(ValueError):
        text = _message(json.loads(text)) or text
    short = " ".join(text.split())
    return f" ({short[:MAX_SHOWN]})" if short else ""


def _message(data: Any) -> str | None:
    error = data.get("error", data) if isinstance(data, dict) else None
    found = error.get("message") if isinstance(error, dict) else error
    return found if isinstance(found, str) else None


def retry_after(answer: HttpAnswer) -> float | None:
    """Seconds, from a number or a date; None if the header is missing or says nothing."""
    value = answer.headers.get("Retry-After", "").strip()
    for read in (float, _seconds_until):
        with suppress(ValueError):
            return max(0.0, read(value))
    return None


def _seconds_until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
