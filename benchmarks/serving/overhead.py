"""`python -m benchmarks.serving.overhead`: what the server adds to calling the guard in process.

One guard answers both: calls from this process, and requests over the loopback from a process of its own,
with httpx, to a server on another thread. They alternate (ABBA), so that a machine that slows down favours
neither side. Goal: at most 5 ms at the median.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from benchmarks.real.results import save
from benchmarks.serving import policy_files
from benchmarks.serving.asking import CHAT
from benchmarks.serving.server import MODEL
from guardrail import Guard
from guardrail.bench.ratios import Interval, Percentiles, Timings, added, percentiles
from guardrail.demo.prompts import TOUR

FOLDER = Path(__file__).parents[1] / "results"
GOAL_MS, WARM_UP, TOKENS = 5.0, 5, 8
MESSAGES = {prompt.name: prompt.messages for prompt in TOUR}
CASES: Mapping[str, tuple[str, bool]] = {
    "block": ("malicious", False),
    "allow, 8 tokens": ("harmless", False),
    "allow, first token of a stream": ("harmless", True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case, in milliseconds."""

    case: str
    pairs: int
    added: Interval
    in_process: Percentiles
    server: Percentiles


@contextmanager
def served(guard: Guard) -> Generator[str]:
    """The URL of a server around a guard, on a thread."""
    from guardrail.serve.app import create_app
    from guardrail.serve.server import Server, bound, url
    from guardrail.serve.settings import ServerSettings

    settings, ready = ServerSettings(port=0), threading.Event()
    listening = bound(settings)
    server = Server(create_app(guard, settings), ready.set)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    ready.wait()
    try:
        yield url(listening)
    finally:
        server.should_exit = True
        thread.join()


class Client:
    """Sends requests from a process of its own, which measures them."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "benchmarks.serving.overhead", "--ask", url]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def milliseconds(self, body: Mapping[str, Any]) -> float:
        """To the end of the answer, or to the first word of a stream."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(body) + "\n")
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def ask_as_told(url: str) -> None:
    """The client's process: for each line that comes in, one request and its time."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        for line in sys.stdin:
            print(_asked(http, json.loads(line)), flush=True)


def _asked(http: httpx.Client, body: Mapping[str, Any]) -> float:
    began = perf_counter()
    if not body["stream"]:
        http.post(CHAT, json=body).raise_for_status()
        return 1e3 * (perf_counter() - began)
    with http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        next(line for line in lines if '"content":"' in line and '"content":""' not in line)
        seconds = perf_counter() - began
        list(lines)
    return 1e3 * seconds


def in_process(guard: Guard, case: str) -> float:
    """The same call without a server."""
    name, stream = CASES[case]
    options: dict[str, Any] = {"temperature": 0, "max_new_tokens": TOKENS}
    began = perf_counter()
    if not stream:
        guard.chat(MESSAGES[name], **options)
        return 1e3 * (perf_counter() - began)
    pieces = guard.stream(MESSAGES[name], **options)
    next(pieces)
    seconds = perf_counter() - began
    list(pieces)
    return 1e3 * seconds


def row(guard: Guard, client: Client, case: str, pairs: int) -> Row:
    """Pairs of one case."""
    name, stream = CASES[case]
    body = {"model": MODEL, "messages": MESSAGES[name], "temperature": 0, "max_tokens": TOKENS}
    body = {**body, "stream": stream}
    sides: list[Callable[[], float]] = [
        lambda: client.milliseconds(body),
        lambda: in_process(guard, case),
    ]
    times: list[list[float]] = [[], []]
    for i in range(WARM_UP + pairs):
        for side in (0, 1) if i % 2 else (1, 0):
            times[side].append(sides[side]())
        gc.collect()
    timings = Timings(guarded=tuple(times[0][WARM_UP:]), bare=tuple(times[1][WARM_UP:]))
    return Row(
        case=case,
        pairs=pairs,
        added=added(timings),
        in_process=percentiles(timings.bare),
        server=percentiles(timings.guarded),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if the goal is missed."""
    chosen = parser().parse_args(arguments)
    if chosen.ask:
        ask_as_told(chosen.ask)
        return 0
    with Guard.from_pretrained("demo", policy_files.guarded(None)) as guard, served(guard) as url:
        client = Client(url)
        rows = [row(guard, client, case, chosen.pairs) for case in CASES]
        client.close()
    for one in rows:
        print(f"{one.case}: {one.added.median:+.2f} ms ({one.added.low:.2f} to {one.added.high:.2f}), {one}")
    found = {"goal_ms": GOAL_MS, "rows": rows, "load": os.getloadavg()}
    print(save("serving-overhead", found, [__doc__ or ""], chosen.out))
    return int(any(one.added.median > GOAL_MS for one in rows))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving.overhead", description=__doc__)
    made.add_argument("--pairs", type=int, default=120)
    made.add_argument("--ask", help=argparse.SUPPRESS)
    made.add_argument("--out", type=Path, default=FOLDER)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
