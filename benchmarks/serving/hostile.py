"""`python -m benchmarks.serving.hostile`: clients that mean harm, or that are broken, over raw sockets.

Bodies of a gigabyte with and without a length, JSON 10,000 levels deep, 10,000 messages, headers and bodies
that trickle in, lengths that lie, pipelined requests, bombs of headers, other protocols. Goals: an answer 4xx
within a second (within the server's own patience for what trickles), memory flat, and a server that answers
the next client as if nothing had happened.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.real.results import save
from benchmarks.serving import policy_files
from benchmarks.serving.asking import CHAT
from benchmarks.serving.server import MODEL, Running

FOLDER = Path(__file__).parents[1] / "results"
PART = b" " * (1 << 16)
GIGABYTE = 1 << 30
ANSWER = re.compile(rb"HTTP/1\.1 (\d+).*?content-length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)
GOAL_S, GOAL_MIB = 1.0, 48.0
REFUSED = frozenset({400})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What a server answered until it closed, or the client had enough, and when that was."""

    statuses: tuple[int, ...]
    seconds: float
    closed: bool
    bodies: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attack:
    """What a client sends. `answers` are the statuses that are right; empty: the connection may just end."""

    name: str
    parts: Callable[[], AsyncIterator[bytes]]
    answers: frozenset[int]
    seconds: float = GOAL_S


async def meet(port: int, parts: AsyncIterator[bytes], wanted: int = 1, patience: float = 60.0) -> Reaction:
    """Send the parts, and read `wanted` answers, or until the server closes the connection."""
    got, closed, began = b"", False, perf_counter()
    async with connected(port) as (reader, writer), asyncio.TaskGroup() as group:
        sending = group.create_task(_send(writer, parts))
        try:
            async with asyncio.timeout(patience):
                while len(_answers(got)) < wanted and not closed:
                    data = await reader.read(1 << 16)
                    got, closed = got + data, not data
        except ConnectionError:
            closed = True
        except TimeoutError:
            pass
        seconds = perf_counter() - began
        sending.cancel()
    answers = _answers(got)
    bodies = tuple(body for _, body in answers)
    return Reaction(
        statuses=tuple(status for status, _ in answers), seconds=seconds, closed=closed, bodies=bodies
    )


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, parts: AsyncIterator[bytes]) -> None:
    with suppress(ConnectionError):
        async for part in parts:
            writer.write(part)
            await writer.drain()


def _answers(got: bytes) -> Sequence[tuple[int, bytes]]:
    """The status and the body of each answer that is whole."""
    found = list[tuple[int, bytes]]()
    while (head := ANSWER.match(got)) and len(got) >= (end := head.end() + int(head[2])):
        found.append((int(head[1]), got[head.end() : end]))
        got = got[end:]
    return found


# --- what is sent --------------------------------------------------------------------------------------


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


# --- a whole run ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack, and how the server stood it. `grown_mib` is what its memory peaked above that before."""

    name: str
    statuses: tuple[int, ...]
    seconds: float
    grown_mib: float
    next_s: float
    """How long the next client waited for its answer."""
    right: bool


async def stood(server: Running, port: int, attack: Attack) -> Row:
    """One attack on a server."""
    before, peak = server.resident, Peak(server)
    async with peak:
        reaction = await meet(port, attack.parts(), patience=attack.seconds + 10)
    answer = await meet(port, once(whole(asking())))
    right = set(reaction.statuses[:1]) <= attack.answers and bool(reaction.statuses)
    grown = peak.resident - before
    return Row(
        name=attack.name,
        statuses=reaction.statuses,
        seconds=round(reaction.seconds, 3),
        grown_mib=round(grown, 1),
        next_s=round(answer.seconds, 3),
        right=right and answer.statuses == (200,) and reaction.seconds < attack.seconds and grown < GOAL_MIB,
    )


class Peak:
    """The most memory that a server uses in a `with` block, in MiB."""

    def __init__(self, server: Running) -> None:
        self.resident = server.resident
        self._server = server

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self.resident = max(self.resident, self._server.resident)
            await asyncio.sleep(0.02)


async def crowd(port: int, count: int) -> Mapping[str, float]:
    """Many connections that say nothing; and how long a client waits meanwhile."""
    async with AsyncExitStack() as idle:
        for _ in range(count):
            await idle.enter_async_context(connected(port))
        answer = await meet(port, once(whole(asking())))
    return {"connections": count, "status": answer.statuses[0], "seconds": round(answer.seconds, 3)}


async def pipelined(port: int, count: int) -> Sequence[int]:
    """Many requests in one write: the statuses, in order; every other request is malformed."""
    requests = [whole(asking()), whole(b'{"model": "demo"}')] * (count // 2)
    return (await meet(port, once(b"".join(requests)), wanted=count)).statuses


async def run(chosen: argparse.Namespace, folder: Path, each: Callable[[Row], None]) -> dict[str, object]:
    """All attacks on one server."""
    policies = policy_files.write(folder / "policies.yaml", policy_files.guarded(None))
    with Running(folder, policies) as server:
        port = int(server.url.rpartition(":")[2])
        rows = [await _one(server, port, attack, each) for attack in attacks(chosen.size, chosen.patience)]
        statuses, calm = await pipelined(port, 20), await crowd(port, 300)
        log = (folder / "server.log").read_text(encoding="utf-8")
    wrong = [row.name for row in rows if not row.right]
    return {
        "attacks": rows,
        "wrong": wrong,
        "pipelined": statuses,
        "crowd": calm,
        "tracebacks": log.count("Traceback"),
    }


async def _one(server: Running, port: int, attack: Attack, each: Callable[[Row], None]) -> Row:
    row = await stood(server, port, attack)
    each(row)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if an answer was wrong."""
    chosen = parser().parse_args(arguments)
    with TemporaryDirectory() as folder:
        found = asyncio.run(run(chosen, Path(folder), lambda row: print(row, flush=True)))
    print(save("serving-hostile", found, [__doc__ or ""], chosen.out), found["wrong"])
    return int(bool(found["wrong"] or found["tracebacks"]))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving.hostile", description=__doc__)
    made.add_argument("--size", type=int, default=GIGABYTE, help="bytes of the largest bodies")
    made.add_argument(
        "--patience", type=float, default=30.0, help="seconds that the server waits for a request"
    )
    made.add_argument("--out", type=Path, default=FOLDER)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
