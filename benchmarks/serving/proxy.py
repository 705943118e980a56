"""`python -m benchmarks.serving.proxy`: what the server adds to a call of the guard in process.

One guard, one prompt, greedy, a few tokens. Each pair asks it in process and through HTTP, in turns (ABBA).
The server runs in the same process, on a thread of its own, so that both ways use the very same model; its
client is the leanest there is, a kept connection of http.client, and counts as part of what the server adds.
Processor time is that of the whole process, and says the same on a busy machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.real.results import save
from benchmarks.serving.load import FOLDER
from guardrail import Guard
from guardrail.bench.ratios import Interval, Percentiles, interval, percentiles
from guardrail.serve.app import create_app
from guardrail.serve.server import Server, bound
from guardrail.serve.settings import ServerSettings

GOAL_MS = 5.0
PROMPT = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """One way of asking through the server, in milliseconds."""

    stream: bool
    tokens: int
    pairs: int
    in_process: Percentiles
    through_http: Percentiles
    p50_added: float
    added: Interval
    """The median of the pairs' differences."""
    added_cpu: Interval
    """The same, of processor time."""


@contextmanager
def connected(guard: Guard) -> Generator[HTTPConnection]:
    """A connection to a server around a guard."""
    settings, begun = ServerSettings(port=0), threading.Event()
    with bound(settings) as listening:
        server = Server(create_app(guard, settings), begun.set)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        begun.wait()
        connection = HTTPConnection(*listening.getsockname()[:2])
        try:
            yield connection
        finally:
            connection.close()
            server.should_exit = True
            thread.join()


def added(guard: Guard, connection: HTTPConnection, tokens: int, pairs: int, stream: bool) -> Added:
    """Ask both ways in turns."""
    options = {"temperature": 0, "max_tokens": tokens}
    body = json.dumps({"model": "demo", "messages": PROMPT, "stream": stream, **options})
    headers = {"content-type": "application/json"}

    def inside() -> None:
        if stream:
            list(guard.stream(PROMPT, **options))
        else:
            guard.chat(PROMPT, **options)

    def outside() -> None:
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 200

    times = _alternating({"in_process": inside, "through_http": outside}, pairs)
    (here, here_cpu), (there, there_cpu) = times["in_process"], times["through_http"]
    return Added(
        stream=stream,
        tokens=tokens,
        pairs=pairs,
        in_process=percentiles(here),
        through_http=percentiles(there),
        p50_added=percentiles(there).p50 - percentiles(here).p50,
        added=interval([b - a for a, b in zip(here, there, strict=True)]),
        added_cpu=interval([b - a for a, b in zip(here_cpu, there_cpu, strict=True)]),
    )


def _alternating(
    ways: Mapping[str, Callable[[], None]], pairs: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Wall and processor time of each way."""
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    order = list(ways)
    for name in order * 3:
        ways[name]()
    for _ in range(pairs):
        for name in order:
            start, used = perf_counter(), process_time()
            ways[name]()
            times[name][0].append((perf_counter() - start) * 1e3)
            times[name][1].append((process_time() - used) * 1e3)
        order.reverse()
    return times


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if the server adds more than the goal."""
    chosen = parser().parse_args(arguments)
    with Guard.from_pretrained("demo") as guard, connected(guard) as connection:
        gc.freeze()
        found = [added(guard, connection, chosen.tokens, chosen.pairs, stream) for stream in (False, True)]
    print(save("serving-proxy", {"goal_ms": GOAL_MS, "ways": found}, [__doc__ or ""], chosen.out))
    for one in found:
        print(one)
    return int(any(one.p50_added > GOAL_MS for one in found))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving.proxy", description=__doc__)
    made.add_argument("--tokens", type=int, default=4)
    made.add_argument("--pairs", type=int, default=200)
    made.add_argument("--out", type=Path, default=FOLDER)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
