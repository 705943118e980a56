"""The body of an HTTP answer, limited in size and in time."""

from __future__ import annotations

import time

import httpx


class Overrun(Exception):
    """An answer that is too long, or that does not end in time."""


def body_of(response: httpx.Response, deadline: float, limit: int) -> bytes:
    """The whole body. `deadline` is a time of `time.monotonic`, `limit` a number of bytes. Raises Overrun."""
    # httpx only bounds each read, so an answer that trickles in would never end
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if time.monotonic() > deadline:
            raise Overrun("did not finish its answer in time")
        if len(content) > limit:
            raise Overrun(f"answered with more than {limit:,} bytes")
    return bytes(content)
