"""`python -m benchmarks.serving.hostile`: clients that mean harm, or that are broken, over raw sockets.

Bodies of a gigabyte with and without a length, JSON 10,000 levels deep, 10,000 messages, headers and bodies
that trickle in, lengths that lie, pipelined requests, bombs of headers, other protocols. Goals: an answer 4xx
within a second (within the server's own patience for what trickles), memory flat, and a server that answers
the next client as if nothing had happened.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.real.results import save
from benchmarks.serving import policy_files
from benchmarks.serving.attacks import Attack, asking, attacks, once, whole
from benchmarks.serving.server import Running

FOLDER = Path(__file__).parents[1] / "results"
GIGABYTE = 1 << 30
ANSWER = re.compile(rb"HTTP/1\.1 (\d+).*?content-length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)
GOAL_MIB = 48.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What a server answered until it closed, or the client had enough, and when that was."""

    statuses: tuple[int, ...]
    seconds: float
    closed: bool
    bodies: tuple[bytes, ...]


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
