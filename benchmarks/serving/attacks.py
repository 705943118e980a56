"""What clients send that mean harm, or that are broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.serving.asking import CHAT
from benchmarks.serving.server import MODEL

PART = b" " * (1 << 16)
GOAL_S = 1.0
REFUSED = frozenset({400})


@dataclass(frozen=True, slots=True)
class Attack:
    """What a client sends. `answers` are the statuses that are right; empty: the connection may just end."""

    name: str
    parts: Callable[[], AsyncIterator[bytes]]
    answers: frozenset[int]
    seconds: float = GOAL_S


def head(*more: str, method: str = "POST", path: str = CHAT) -> bytes:
    """The beginning of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def whole(body: bytes) -> bytes:
    """A request with this body."""
    return head(f"Content-Length: {len(body)}") + body


def asking(content: str = "What is the capital of France?", **fields: object) -> bytes:
    """A body that is right."""
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": MODEL, "messages": messages, "max_tokens": 2, **fields}).encode()


async def once(*parts: bytes) -> AsyncIterator[bytes]:
    """These parts, one after another."""
    for part in parts:
        yield part


async def trickle(data: Iterable[bytes], pause: float = 0.05) -> AsyncIterator[bytes]:
    """One part after each pause."""
    for part in data:
        yield part
        await asyncio.sleep(pause)


async def flood(beginning: bytes, part: bytes, size: int) -> AsyncIterator[bytes]:
    """So many bytes, in equal parts."""
    yield beginning
    for _ in range(size // len(part)):
        yield part


def chunk(data: bytes) -> bytes:
    """A part of a body without a length."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def byte_by_byte(data: bytes) -> list[bytes]:
    """Each byte alone."""
    return [data[i : i + 1] for i in range(len(data))]


def attacks(size: int, patience: float) -> Sequence[Attack]:
    """All of them. `size` is that of the largest bodies, `patience` the server's with what trickles."""
    return [*_large(size), *_late(patience + GOAL_S), *_wrong_lengths(), *_heads(size), *_other_protocols()]


def _large(size: int) -> Sequence[Attack]:
    many = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}] * 10_000}).encode()
    deep = b'{"model":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    objects, lists = (b'{"messages":[' + one + (b"," + one) * 10**6 + b"]}" for one in (b"{}", b"[]"))
    known, unknown = head(f"Content-Length: {size}"), head("Transfer-Encoding: chunked")
    return [
        Attack("a large body, its length known", lambda: flood(known, PART, size), frozenset({413})),
        Attack("a large body in chunks", lambda: flood(unknown, chunk(PART), size), frozenset({413})),
        Attack("10,000 levels", lambda: once(whole(deep)), REFUSED),
        Attack("10,000 messages", lambda: once(whole(many)), REFUSED),
        Attack("a million messages", lambda: once(whole(objects)), REFUSED),
        Attack("a million lists", lambda: once(whole(lists)), REFUSED),
        Attack("one message of 3 MB", lambda: once(whole(asking("ab " * 1_000_000))), REFUSED),
    ]


def _late(limit_s: float) -> Sequence[Attack]:
    late, refused = head("Content-Length: 100000"), frozenset({408})
    headers = byte_by_byte(head()[:-2] + b"X: " + b"x" * 10_000)
    return [
        Attack("headers that trickle", lambda: trickle(headers), refused, limit_s),
        Attack("a body that trickles", lambda: trickle([late, *[b" "] * 10_000]), refused, limit_s),
        Attack("less than the length says", lambda: once(late, asking()), refused, limit_s),
    ]


def _wrong_lengths() -> Sequence[Attack]:
    chunked = head("Transfer-Encoding: chunked")
    # for a server that goes by the length, the chunks are another request
    both = head("Content-Length: 5", "Transfer-Encoding: chunked") + chunk(asking()) + chunk(b"")
    return [
        Attack("a length and chunks", lambda: once(both + whole(asking())), REFUSED),
        Attack("more than the length says", lambda: once(head("Content-Length: 9") + asking()), REFUSED),
        Attack("two lengths", lambda: once(head("Content-Length: 9", "Content-Length: 8")), REFUSED),
        Attack("a negative length", lambda: once(head("Content-Length: -9")), REFUSED),
        Attack("chunks without a size", lambda: once(chunked + asking() + b"\r\n"), REFUSED),
    ]


def _heads(size: int) -> Sequence[Attack]:
    bombs = [f"X-Bomb-{i}: {'x' * 50}" for i in range(10_000)]
    return [
        Attack("10,000 headers", lambda: once(head(*bombs)), frozenset({400, 431})),
        Attack("one header of 1 MB", lambda: once(head("X-Bomb: " + "x" * 10**6)), frozenset({400, 431})),
        Attack("an address of 1 MB", lambda: once(head(path="/" + "x" * 10**6)), frozenset({400, 414, 431})),
        Attack("a header that never ends", lambda: flood(b"POST / HTTP/1.1\r\nX: ", PART, size), REFUSED),
    ]


def _other_protocols() -> Sequence[Attack]:
    packed = head("Content-Encoding: gzip", "Content-Length: 4") + b"\x1f\x8b\x08\x00"
    return [
        Attack("HTTP/2", lambda: once(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frozenset({400, 421})),
        Attack("TLS", lambda: once(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500), REFUSED),
        Attack("zeros", lambda: once(b"\0" * 4096), REFUSED),
        Attack(
            "HTTP/2 without its preface", lambda: once(whole(asking()).replace(b"/1.1", b"/2.0", 1)), REFUSED
        ),
        Attack("no host", lambda: once(b"POST / HTTP/1.1\r\n\r\n"), REFUSED),
        Attack("gzip", lambda: once(packed), frozenset({415})),
    ]
