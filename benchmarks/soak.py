"""`python -m benchmarks.soak`: many mixed requests from threads and tasks, with reloads.

The built-in model is asked. Requests are allowed, blocked, steered, rephrased, malformed, cancelled or too
slow. What each has to give is found out beforehand, one request at a time. Goals: no wrong answer, no lost or
doubled audit record, memory flat after the warm-up, and a queue that refuses at its bound. The run consists
of segments and can be interrupted: started again with the same `--work`, it goes on after the last whole
segment.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import numpy as np

from benchmarks.mixed import Asked, Seen, Subject, plan, run
from guardrail import Guard, QueueFull
from guardrail.audit.reading import events, verify
from guardrail.bench import machine as provenance

OUT = Path(__file__).parent / "results" / "soak.json"
WARM_UP = 4
"""Segments that the memory's slope leaves out, at the start of every process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What became of one part of the requests. `resident` is in MiB, `process` numbers the runs."""

    number: int
    process: str
    asked: dict[str, int]
    wrong: tuple[str, ...]
    lost: int
    never_begun: int
    """Cancelled before a thread took them up, so that there was no request to record."""
    doubled: int
    reloads: int
    reloads_wrong: int
    seconds: float
    resident: float


class Reloads(Thread):
    """Changes the policy file and reloads it, now and then with a broken file."""

    def __init__(self, subject: Subject, count: int, over: Event) -> None:
        super().__init__(daemon=True)
        self.subject, self.count, self.over = subject, count, over
        self.done = self.wrong = 0

    def run(self) -> None:
        while self.done < self.count and not self.over.wait(0.5):
            broken = self.done % 5 == 4
            self.subject.write_policies(self.done, broken)
            self.wrong += self.subject.guard.reload() == broken
            self.done += 1
        self.subject.write_policies(0)


def segment(subject: Subject, number: int, size: int, reloads: int, threads: int) -> Segment:
    """Ask the requests of one segment and compare what callers saw with what the audit log says."""
    asked, over, start = plan(number, size), Event(), time.perf_counter()
    changing = Reloads(subject, reloads, over)
    changing.start()
    seen = run(subject, asked, threads)
    over.set()
    changing.join()
    kept = recorded(subject.log, {item.conversation for item in asked})
    missing = [item for item in asked if item.conversation not in kept]
    return Segment(
        number=number,
        process=str(os.getpid()),
        asked=dict(Counter(item.case for item in asked)),
        wrong=tuple(wrong(subject, seen, kept)),
        lost=sum(item.case not in ("malformed", "cancelled") for item in missing),
        never_begun=sum(item.case == "cancelled" for item in missing),
        doubled=sum(len(outcomes) > 1 for outcomes in kept.values()),
        reloads=changing.done,
        reloads_wrong=changing.wrong,
        seconds=time.perf_counter() - start,
        resident=resident(),
    )


def recorded(log: Path, conversations: set[str]) -> Mapping[str, list[str]]:
    """The outcomes of each conversation, but for decisions that came after a time-out was answered."""
    found: dict[str, list[str]] = {}
    for event in events(log):
        outcome = event.record.outcome
        if event.record.conversation in conversations and outcome not in (None, "late"):
            found.setdefault(event.record.conversation, []).append(outcome)
    return found


def wrong(subject: Subject, seen: Mapping[Asked, Seen], kept: Mapping[str, list[str]]) -> Sequence[str]:
    """Every request that did not give what it has to, or whose record says something else."""
    found: list[str] = []
    for asked, got in seen.items():
        wanted = subject.wanted(asked)
        # a request may end before it is cancelled; then it has to end as if nobody had tried
        if asked.case == "cancelled" and got.outcome == "answered":
            wanted = got
        records = kept.get(asked.conversation, [])
        if got != wanted or any(outcome != got.outcome for outcome in records):
            found.append(f"{asked}: {got}, wanted {wanted}, recorded {records}")
    return found


def resident() -> float:
    """The memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def slope(segments: Sequence[Segment], size: int) -> tuple[float, float, float]:
    """MiB per 1,000 requests after the warm-up: least squares within processes, with a 95 % interval."""
    x, y = list[float](), list[float]()
    for process in {part.process for part in segments}:
        mine = [part for part in segments if part.process == process][WARM_UP:]
        if len(mine) > 1:
            at = np.arange(len(mine)) * size / 1e3
            x += list(at - at.mean())
            y += list(np.array([part.resident for part in mine]) - np.mean([part.resident for part in mine]))
    if len(x) < 3:
        return float("nan"), float("nan"), float("nan")
    best = float(np.dot(x, y) / np.dot(x, x))
    error = np.sqrt(np.sum((np.array(y) - best * np.array(x)) ** 2) / (len(x) - 2) / np.dot(x, x))
    return best, best - 1.96 * float(error), best + 1.96 * float(error)


def refusals(subject: Subject, bound: int = 4, callers: int = 40) -> dict[str, int]:
    """How many of many simultaneous callers a short queue refuses."""
    with Guard.from_pretrained("demo", subject.file, plugins=subject.plugins, queue_size=bound) as guard:

        def ask(_: int) -> str:
            try:
                return guard.check("Hello", tags=("slow",)).decision.status
            except QueueFull:
                return "refused"

        with ThreadPoolExecutor(callers) as pool:
            return dict(Counter(pool.map(ask, range(callers))))


def journal(path: Path) -> list[Segment]:
    """The segments that are done."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Segment(**json.loads(line)) for line in lines]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if something was wrong, lost or doubled."""
    chosen = parser().parse_args(arguments)
    chosen.work.mkdir(parents=True, exist_ok=True)
    logging.getLogger("guardrail").setLevel(logging.ERROR)  # broken files are meant to be broken
    path, count = chosen.work / "segments.jsonl", -(-chosen.requests // chosen.segment)
    subject = Subject(chosen.work)
    for number in range(len(journal(path)), count):
        part = segment(subject, number, chosen.segment, -(-chosen.reloads // count), chosen.threads)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(part)) + "\n")
        say = f"{len(part.wrong)} wrong, {part.seconds:.0f} s, {part.resident:.0f} MiB"
        print(f"{number + 1} of {count}: {say}", flush=True)
    return report(subject, journal(path), chosen.segment, chosen.out)


def report(subject: Subject, segments: Sequence[Segment], size: int, out: Path) -> int:
    """Write the results; the exit code."""
    bad = sum(len(part.wrong) + part.lost + part.doubled + part.reloads_wrong for part in segments)
    cases = Counter[str]()
    for part in segments:
        cases.update(part.asked)
    found = {
        "requests": size * len(segments),
        "cases": dict(cases),
        "wrong": [text for part in segments for text in part.wrong],
        "lost": sum(part.lost for part in segments),
        "never_begun": sum(part.never_begun for part in segments),
        "doubled": sum(part.doubled for part in segments),
        "reloads": sum(part.reloads for part in segments),
        "reloads_wrong": sum(part.reloads_wrong for part in segments),
        "mib_per_1000_requests": dict(zip(("value", "low", "high"), slope(segments, size), strict=True)),
        "resident_mib": [round(part.resident, 1) for part in segments],
        "queue_of_4_and_40_callers": refusals(subject),
        "audit_intact": verify(subject.log).ok,
        "seconds": round(sum(part.seconds for part in segments)),
        "machine": asdict(provenance.machine("cpu")),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if bad or not found["audit_intact"] else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    made.add_argument("--requests", type=int, default=10_000)
    made.add_argument("--segment", type=int, default=500, help="requests in each segment")
    made.add_argument("--reloads", type=int, default=100)
    made.add_argument("--threads", type=int, default=6, help="of threads, and of tasks beside them")
    made.add_argument("--work", type=Path, default=Path("runs/soak"))
    made.add_argument("--out", type=Path, default=OUT)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
