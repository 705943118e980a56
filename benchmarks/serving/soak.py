"""`python -m benchmarks.serving.soak`: many mixed requests to a full server, with reloads.

A real server on the built-in model, at the default settings of `guardrail serve`, gets requests that are
allowed, blocked, steered, rephrased, escalated, malformed, without a right key, read slowly or left in the
middle, streamed or not, more at once than it takes. Each has to give what it gives alone. Goals: no wrong
answer, no lost or doubled audit record, memory flat after the warm-up, never more requests inside than the
queue has places. The run consists of segments and can be interrupted: started again with the same `--work`,
it goes on after the last whole segment. A segment during which the processes were stopped is run again: time
limits pass then, and nobody works.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from benchmarks.real.results import save
from benchmarks.serving import policy_files
from benchmarks.serving.arrivals import arrive
from benchmarks.serving.asking import client
from benchmarks.serving.mixed import LEAVING, Asked, Mixed, Told, plan
from benchmarks.serving.pulse import unstopped
from benchmarks.serving.records import Recorded, intact, recorded
from benchmarks.serving.server import Running
from benchmarks.soak import slope
from guardrail.actions.review_queue import ReviewQueue
from guardrail.cli.serve_options import BATCHING
from guardrail.serve.keys import add_key
from guardrail.serve.settings import ServerSettings

FOLDER = Path(__file__).parents[1] / "results"
SETTLE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What became of one part of the requests. `resident` is in MiB, `process` numbers the servers."""

    number: int
    process: str
    asked: dict[str, int]
    wrong: tuple[str, ...]
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    overloads: int
    reloads: int
    reloads_wrong: tuple[str, ...]
    seconds: float
    resident: float


@dataclass(frozen=True)
class Subject:
    """The server, and what it writes."""

    server: Running
    http: httpx.AsyncClient
    log: Path
    policies: Path
    mixed: Mixed

    async def segment(self, number: int, size: int, reloads: int, places: int, attempt: int = 0) -> Segment:
        """Ask the requests of one segment, and compare what clients saw with what the audit log says."""
        # an earlier attempt has left records already
        asked = plan(number * size, size, f"{self.server.process.pid}-{attempt}")
        began = perf_counter()
        changing = asyncio.create_task(self._reloaded(reloads, number))
        arrived = await arrive(lambda i: self.mixed.answer(asked[i]), [0.0] * size, places)
        seconds, told = perf_counter() - began, [one.seen for one in arrived]
        reloads_wrong, kept = await changing, await self._settled(asked)
        return Segment(
            number=number,
            process=str(self.server.process.pid),
            asked=dict(Counter(item.case for item in asked)),
            wrong=tuple(fault for one in told if (fault := self.fault(one, kept))),
            lost=tuple(self.lost(told, kept)),
            doubled=tuple(name for name, found in kept.items() if len(found) > 1),
            overloads=sum(one.overloads for one in told),
            reloads=reloads,
            reloads_wrong=reloads_wrong,
            seconds=seconds,
            resident=self.server.resident,
        )

    def fault(self, told: Told, kept: Mapping[str, Sequence[Recorded]]) -> str | None:
        """What is wrong with an answer, its record or its ticket."""
        if (fault := self.mixed.fault(told)) is not None:
            return fault
        records, allowed = kept.get(told.asked.conversation, ()), self.mixed.outcome(told.asked)
        for record in records:
            if record.outcome not in allowed or told.seen.audit_id not in ("", record.id):
                return f"{told.asked}: {told.seen}, but recorded as {record}"
        ticket = told.seen.ticket_id
        if ticket and ReviewQueue(self.server.tickets).get(ticket) is None:
            return f"{told.asked}: there is no ticket {ticket}"
        return None

    def lost(self, told: Sequence[Told], kept: Mapping[str, object]) -> list[str]:
        """Requests without a record. One whose client left early may never have begun."""
        answered = [one for one in told if one.asked.case not in LEAVING or one.seen.audit_id]
        wanting = [one.asked for one in answered if self.mixed.outcome(one.asked)]
        return [str(asked) for asked in wanting if asked.conversation not in kept]

    async def _settled(self, asked: Sequence[Asked]) -> Mapping[str, Sequence[Recorded]]:
        """The records, once each request that began has its end, which takes a while if a client left."""
        names, until = {item.conversation for item in asked}, perf_counter() + SETTLE_S
        while True:
            begun, ended = recorded(self.log, names)
            if begun <= {one.id for found in ended.values() for one in found} or perf_counter() > until:
                return ended
            await asyncio.sleep(0.2)

    async def _reloaded(self, count: int, segment: int) -> tuple[str, ...]:
        """Change the policy file and have it reloaded; every fifth file is broken."""
        wrong = list[str]()
        for i in range(count):
            broken = i % 5 == 4
            self._write(segment * count + i, broken)
            answer = await self.http.post("/admin/reload")
            if (answer.status_code == 200) == broken:
                wrong.append(f"{'broken' if broken else 'good'} file: {answer.status_code} {answer.text}")
            await asyncio.sleep(0.05)
        self._write(0, broken=False)
        return tuple(wrong)

    def _write(self, mark: int, broken: bool) -> None:
        if broken:
            policy_files.put(self.policies, f"# {mark}\nversion: [")
        else:
            policy_files.write(self.policies, policy_files.guarded(self.log), mark)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The files of a server whose callers need a key."""

    folder: Path
    key: str

    @classmethod
    def into(cls, folder: Path) -> Prepared:
        """Write them. A key of an earlier run no longer works."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "keys.yaml").unlink(missing_ok=True)
        key = add_key(folder / "keys.yaml", "soak", None, ["ask", "admin", "review"])
        policy_files.write(folder / "policies.yaml", policy_files.guarded(folder / "audit.jsonl"))
        return cls(folder, key)

    @property
    def log(self) -> Path:
        """The audit log."""
        return self.folder / "audit.jsonl"

    def server(self, *options: str) -> Running:
        """Start a server."""
        keys = str(self.folder / "keys.yaml")
        return Running(self.folder, self.folder / "policies.yaml", "--keys", keys, *options)

    def client(self, server: Running) -> httpx.AsyncClient:
        """A client with the key."""
        return client(server.url, authorization=f"Bearer {self.key}")


async def soaked(chosen: argparse.Namespace) -> dict[str, Any]:
    """Go on with the run, and sum it up."""
    prepared, journal = Prepared.into(chosen.work), Journal(chosen.work / "segments.jsonl")
    count, until = -(-chosen.requests // chosen.segment), perf_counter() + chosen.seconds
    with prepared.server("--queue", str(chosen.queue), "--engine", chosen.engine) as server:
        async with prepared.client(server) as http:
            mixed = Mixed(http)
            await mixed.learn()
            subject = Subject(server, http, prepared.log, prepared.folder / "policies.yaml", mixed)
            for attempt in itertools.count():
                if (number := len(journal.segments)) >= count or perf_counter() > until:
                    break
                reloads = -(-chosen.reloads // count)
                part = await unstopped(
                    subject.segment(number, chosen.segment, reloads, chosen.places, attempt)
                )
                if part is not None:
                    journal.add(part)
                    print(_line(part, count), flush=True)
            refused = await refusals(mixed, chosen.queue)
    return {**summed(journal.segments, chosen.segment, prepared.log), **refused, "alone": mixed.unexplained}


@dataclass(frozen=True)
class Journal:
    """The segments that are done."""

    path: Path

    @property
    def segments(self) -> list[Segment]:
        """All of them."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        return [Segment(**json.loads(line)) for line in lines]

    def add(self, part: Segment) -> None:
        """One more."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(part)) + "\n")


async def refusals(mixed: Mixed, queue: int) -> dict[str, int]:
    """How many of many requests at the same moment a full server refuses."""
    asked = [Asked(-1, "harmless", False, 0.0)] * (3 * queue)
    answers = await asyncio.gather(*(mixed.answer(one) for one in asked))
    return {"queue": queue, "burst": len(asked), "burst_overloads": sum(one.overloads for one in answers)}


def summed(segments: Sequence[Segment], size: int, log: Path) -> dict[str, Any]:
    """The results."""
    cases = Counter[str]()
    for part in segments:
        cases.update(part.asked)
    value, low, high = slope(segments, size)  # pyright: ignore[reportArgumentType]
    return {
        "requests": sum(cases.values()),
        "cases": dict(cases),
        "wrong": [text for part in segments for text in part.wrong],
        "lost": [text for part in segments for text in part.lost],
        "doubled": [text for part in segments for text in part.doubled],
        "overloads": sum(part.overloads for part in segments),
        "reloads": sum(part.reloads for part in segments),
        "reloads_wrong": [text for part in segments for text in part.reloads_wrong],
        "mib_per_1000_requests": {"value": value, "low": low, "high": high},
        "resident_mib": [round(part.resident, 1) for part in segments],
        "audit_intact": intact(log),
        "seconds": round(sum(part.seconds for part in segments)),
    }


def _line(part: Segment, count: int) -> str:
    bad = f"{len(part.wrong)} wrong, {len(part.lost)} lost, {len(part.doubled)} doubled"
    reloads = f"{len(part.reloads_wrong)} of {part.reloads} reloads wrong"
    busy = f"{part.overloads} overloads, {part.seconds:.0f} s, {part.resident:.0f} MiB"
    return f"{part.number + 1} of {count}: {bad}, {reloads}, {busy}"


def failed(found: Mapping[str, Any]) -> bool:
    """Whether anything was wrong."""
    names = ("wrong", "lost", "doubled", "reloads_wrong", "alone")
    return any(found[name] for name in names) or not found["audit_intact"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if something was wrong, lost or doubled."""
    chosen = parser().parse_args(arguments)
    found = asyncio.run(soaked(chosen))
    print(save(chosen.name, found, [__doc__ or ""], chosen.out))
    return int(failed(found))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving.soak", description=__doc__)
    made.add_argument("--requests", type=int, default=10_000)
    made.add_argument("--segment", type=int, default=250, help="requests in each segment")
    made.add_argument("--reloads", type=int, default=200)
    made.add_argument("--places", type=int, default=96, help="requests in flight")
    made.add_argument("--queue", type=int, default=ServerSettings().queue, help="requests inside")
    made.add_argument("--engine", default=BATCHING)
    made.add_argument("--seconds", type=float, default=1e9, help="begin no further segment after these")
    made.add_argument("--name", default="serving-soak", help="of the results file")
    made.add_argument("--work", type=Path, default=Path("runs/serving-soak"))
    made.add_argument("--out", type=Path, default=FOLDER)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
