"""`python -m benchmarks.serving.kills`: kill -9 the server under load, many times, on the same files.

A real server on the built-in model, at the default settings of `guardrail serve`, gets mixed requests, as in
the soak, and is killed at any moment. Goals: every request whose answer a client has, or has seen begin, is
in the audit log, with its outcome if the answer was whole; every ticket that a client was told of is in the
review queue; `guardrail audit verify` finds nothing; the next server starts on the same files. The run can be
interrupted: started again with the same `--work`, it goes on after the last kill.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
from pydantic import TypeAdapter

from benchmarks.real.results import save
from benchmarks.serving.mixed import OUTCOMES, Asked, Mixed, plan
from benchmarks.serving.records import intact
from benchmarks.serving.server import Running
from benchmarks.serving.soak import FOLDER, Prepared
from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit.reading import read
from guardrail.cli.serve_options import BATCHING

CLIENTS = 96
"""More than the server takes at once."""
PLAN = 5_000
"""More requests than a server can answer before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client knew when the server was killed."""

    audit_id: str
    ticket_id: str
    outcome: str | None
    """As in the audit log; None if the answer was not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: when it came, in seconds of load, and what clients knew by then."""

    number: int
    after: float
    told: list[Told]
    wrong: list[str]


async def killed(server: Running, http: httpx.AsyncClient, number: int, least: int) -> Kill:
    """Load a server, and kill it a moment after so many requests are answered."""
    draw, began = random.Random(number), perf_counter()
    clients = _Clients(Mixed(http), number * PLAN)
    asking = [asyncio.create_task(clients.keep_asking()) for _ in range(CLIENTS)]
    try:
        await clients.answered(least)
        await asyncio.sleep(draw.random())
    finally:
        server.kill()
        after = perf_counter() - began
        await asyncio.gather(*asking)
    return Kill(number=number, after=after, told=clients.told, wrong=clients.wrong)


async def started_and_killed(prepared: Prepared, number: int, least: int, engine: str) -> Kill:
    """One kill of a server that is started for it."""
    with prepared.server("--engine", engine) as server:
        async with prepared.client(server) as http:
            return await killed(server, http, number, least)


class _Clients:
    """Ask until the server is gone."""

    def __init__(self, mixed: Mixed, first: int) -> None:
        self.told, self.wrong = list[Told](), list[str]()
        self._mixed, self._asked = mixed, iter(plan(first, PLAN))

    async def answered(self, count: int) -> None:
        """Wait until so many whole answers have come; a full queue refuses the rest."""
        while sum(told.outcome is not None for told in self.told) < count:
            await asyncio.sleep(0.01)

    async def keep_asking(self) -> None:
        """One request after another."""
        for asked in self._asked:
            with suppress(httpx.HTTPError):
                if (told := await self._tell(asked)) is not None:
                    self.told.append(told)
                    continue
            return

    async def _tell(self, asked: Asked) -> Told | None:
        """What the client knows in the end; None if the server is gone."""
        seen = (await self._mixed.answer(asked)).seen
        if seen.status == 500:
            self.wrong.append(f"{asked}: {seen}")
        if not seen.status and seen.error != "gone":
            return None
        outcome = OUTCOMES.get(seen.action) if seen.outcome == "ok" else None
        return Told(audit_id=seen.audit_id, ticket_id=seen.ticket_id, outcome=outcome)


def faults(kills: Sequence[Kill], log: Path, tickets: Path) -> list[str]:
    """Whatever clients were told and the files do not know."""
    records, queue = {record.id: record.outcome for record in read(log)}, ReviewQueue(tickets)
    wrong = [text for kill in kills for text in kill.wrong]
    for told in (told for kill in kills for told in kill.told):
        if told.audit_id and told.audit_id not in records:
            wrong.append(f"no record: {told}")
        elif told.outcome and records[told.audit_id] != told.outcome:
            wrong.append(f"recorded as {records[told.audit_id]}: {told}")
        if told.ticket_id and queue.get(told.ticket_id) is None:
            wrong.append(f"no ticket: {told}")
    return wrong


def summed(kills: Sequence[Kill], prepared: Prepared) -> dict[str, Any]:
    """The results."""
    told = [told for kill in kills for told in kill.told]
    outcomes = Counter(record.outcome for record in read(prepared.log))
    return {
        "kills": len(kills),
        "seconds_of_load": [round(kill.after, 2) for kill in kills],
        "answered": sum(bool(one.outcome) for one in told),
        "begun": sum(bool(one.audit_id and not one.outcome) for one in told),
        "tickets": sum(bool(one.ticket_id) for one in told),
        "records": dict(outcomes),
        "faults": faults(kills, prepared.log, prepared.folder / "tickets.sqlite"),
        "audit_intact": intact(prepared.log),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if anything is missing."""
    chosen = parser().parse_args(arguments)
    prepared, journal = Prepared.into(chosen.work), chosen.work / "kills.jsonl"
    until = perf_counter() + chosen.seconds
    while len(_kills(journal)) < chosen.kills and perf_counter() < until:
        kill = asyncio.run(started_and_killed(prepared, len(_kills(journal)), chosen.least, chosen.engine))
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(kill)) + "\n")
        print(f"kill {kill.number + 1}: after {kill.after:.1f} s, {len(kill.told)} answers", flush=True)
    found = summed(_kills(journal), prepared)
    print(save("serving-kills", found, [__doc__ or ""], chosen.out), found["faults"][:5])
    return int(bool(found["faults"]) or not found["audit_intact"])


def _kills(journal: Path) -> list[Kill]:
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    return [TypeAdapter(Kill).validate_json(line) for line in lines]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving.kills", description=__doc__)
    made.add_argument("--kills", type=int, default=20)
    made.add_argument("--least", type=int, default=30, help="answers before each kill")
    made.add_argument("--engine", default=BATCHING)
    made.add_argument("--seconds", type=float, default=1e9, help="begin no further kill after these")
    made.add_argument("--work", type=Path, default=Path("runs/serving-kills"))
    made.add_argument("--out", type=Path, default=FOLDER)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
