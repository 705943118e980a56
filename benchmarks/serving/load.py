"""`python -m benchmarks.serving.load`: throughput and latency of the server, with the guard on and off.

One server answers all rounds. Off means the same server, model and requests under a policy file without
policies, so that nothing looks into the model; the file is swapped between rounds, which alternate (ABBA).
Requests are harmless and greedy: both sides have to say the same, word for word. They arrive as a Poisson
process of `--rate` per second, or without a pause from each of `--clients`. The server's processor time says
the same on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nan
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import httpx

from benchmarks.real.results import save
from benchmarks.serving import policy_files
from benchmarks.serving.arrivals import Arrived, arrive, poisson
from benchmarks.serving.asking import Seen, ask, client
from benchmarks.serving.server import MODEL, Running
from guardrail.bench.ratios import Interval, Percentiles, interval, percentiles
from guardrail.demo.generator import Chat
from guardrail.demo.material import benign

FOLDER = Path(__file__).parents[1] / "results"
PATIENCE_S = 30.0
GOALS = {"32 clients / 1": 2.5, "guard on / off": 0.97}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How requests come. `clients` is the most that are in flight."""

    clients: int
    requests: int
    tokens: int
    rate: float = inf
    stream_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What came of one round. Times in milliseconds, counted from when a request was due.

    `first` is the first word of streams; `plain` the whole time of the others; `processor` the server's
    processor time for each request.
    """

    guard: bool
    clients: int
    requests: int
    per_second: float
    tokens_per_second: float
    total: Percentiles
    first: Percentiles
    plain: Percentiles
    outcomes: dict[str, int]
    processor: float
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A scenario: its rounds, and the throughput with the guard over that without it.

    `processor_off_on` is the processor time without the guard over that with it.
    """

    scenario: Scenario
    rounds: list[Round]
    on_off: Interval
    processor_off_on: Interval
    differing: int
    """Requests whose texts differ with and without the guard; 0 unless something is wrong."""


class Subject:
    """The server, its prompts, and which policies are in force."""

    def __init__(self, server: Running, http: httpx.AsyncClient, policies: Path) -> None:
        self.server, self.http, self.policies = server, http, policies
        self.prompts: list[Chat] = []
        self._marks = 0
        self._on: bool | None = None

    async def guard(self, on: bool) -> None:
        """Put the policies in force, or none, and wait until they are."""
        if on is self._on:
            return
        self._on = on
        self._marks += 1
        chosen = policy_files.guarded(None) if on else policy_files.unguarded(None)
        before = await self._in_force()
        policy_files.write(self.policies, chosen, self._marks)
        end = perf_counter() + PATIENCE_S
        while await self._in_force() == before:
            if perf_counter() > end:
                raise TimeoutError("the server did not take up the new policies")
            await asyncio.sleep(0.2)

    async def _in_force(self) -> str:
        wanted = {"guardrail": {"decision": True}, "max_tokens": 1}
        body = _body([{"role": "user", "content": "Hello"}], 1, stream=False) | wanted
        answer = (await self.http.post("/v1/chat/completions", json=body)).json()
        return str(answer["guardrail"]["decisions"][-1]["policy_sha256"])

    async def choose_prompts(self, count: int) -> None:
        """Harmless prompts that no policy touches."""
        for one in benign(1, 2 * count, "test"):
            seen = await ask(self.http, _body(one.messages, 1, stream=False), {})
            if seen.action == "allow" and len(self.prompts) < count:
                self.prompts.append(one.messages)

    async def round(self, scenario: Scenario, guard: bool, seed: int) -> tuple[Round, Sequence[str]]:
        """One round, and its texts."""
        times = poisson(scenario.requests, scenario.rate, seed)
        every = max(round(1 / scenario.stream_share), 1) if scenario.stream_share else inf

        async def send(i: int) -> Seen:
            prompt = self.prompts[i % len(self.prompts)]
            return await ask(self.http, _body(prompt, scenario.tokens, stream=i % every == 0), {})

        began, used = perf_counter(), self.server.processor_s
        arrived = await arrive(send, times, scenario.clients)
        seconds, used = perf_counter() - began, self.server.processor_s - used
        return _summed(scenario, guard, arrived, seconds, used), [one.seen.text for one in arrived]


def _body(messages: Chat, tokens: int, stream: bool) -> dict[str, Any]:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    greedy = {"temperature": 0, "max_tokens": tokens}
    return {"model": MODEL, "messages": messages, "stream": stream, **greedy, **options}


def _summed(
    scenario: Scenario, guard: bool, arrived: Sequence[Arrived[Seen]], seconds: float, processor_s: float
) -> Round:
    good = [one for one in arrived if one.seen.outcome == "ok"]
    streamed = [one for one in good if one.seen.headers["content-type"].startswith("text/event-stream")]
    plain = [one for one in good if one not in streamed]
    return Round(
        guard=guard,
        clients=scenario.clients,
        requests=len(arrived),
        per_second=len(good) / seconds,
        tokens_per_second=sum(one.seen.tokens for one in good) / seconds,
        total=_spread([one.seen.end - one.due for one in good]),
        first=_spread([(one.seen.first or nan) - one.due for one in streamed]),
        plain=_spread([one.seen.end - one.due for one in plain]),
        outcomes=dict(Counter(one.seen.outcome for one in arrived)),
        processor=1e3 * processor_s / len(arrived),
        load=os.getloadavg()[0],
    )


def _spread(seconds: Sequence[float]) -> Percentiles:
    return percentiles([1e3 * one for one in seconds] or [nan])


async def measured(subject: Subject, scenario: Scenario, pairs: int) -> Found:
    """Pairs of rounds with and without the guard; who goes first alternates."""
    rounds, texts = list[Round](), list[Sequence[str]]()
    for i in range(pairs):
        for guard in (True, False) if i % 2 else (False, True):
            await subject.guard(guard)
            await subject.round(_warming(scenario), guard, 0)
            done, said = await subject.round(scenario, guard, i)
            rounds.append(done)
            texts.append(said)
            print(_line(done), flush=True)
    differing = sum(a != b for one, other in pairwise(texts) for a, b in zip(one, other, strict=True))
    on, off = ([one for one in rounds if one.guard is guard] for guard in (True, False))
    return Found(
        scenario=scenario,
        rounds=rounds,
        on_off=interval([a.per_second / b.per_second for a, b in zip(on, off, strict=True)]),
        processor_off_on=interval([b.processor / a.processor for a, b in zip(on, off, strict=True)]),
        differing=differing,
    )


def _warming(scenario: Scenario) -> Scenario:
    few = min(scenario.requests, 2 * scenario.clients)
    return Scenario(clients=scenario.clients, requests=few, tokens=scenario.tokens)


def _line(done: Round) -> str:
    who = f"guard {'on ' if done.guard else 'off'} {done.clients:3} clients"
    speed = f"{done.per_second:6.1f} requests/s, {done.tokens_per_second:6.0f} tokens/s"
    total, first = (f"p50 {one.p50:.0f} p99 {one.p99:.0f} ms" for one in (done.total, done.first))
    return f"{who}: {speed}, total {total}, first word {first}, {done.outcomes}, load {done.load:.1f}"


async def _main(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    policies = policy_files.write(folder / "policies.yaml", policy_files.guarded(None))
    # float32: in half precision two tokens often have the same logit, and a batch then chooses the other one
    options = ["--engine", chosen.engine, "--dtype", "float32", "--queue", str(2 * max(chosen.clients))]
    with Running(folder, policies, *options) as server:
        async with client(server.url) as http:
            subject = Subject(server, http, policies)
            await subject.choose_prompts(chosen.prompts)
            found = [await measured(subject, _scenario(chosen, n), chosen.pairs) for n in chosen.clients]
    return {"engine": chosen.engine, "scenarios": found, **_compared(found), "goals": GOALS}


def _scenario(chosen: argparse.Namespace, clients: int) -> Scenario:
    return Scenario(
        clients=clients,
        requests=chosen.requests,
        tokens=chosen.tokens,
        rate=chosen.rate,
        stream_share=chosen.stream_share,
    )


def _compared(found: Sequence[Found]) -> dict[str, Interval]:
    """The throughput of most clients over that of fewest, with the guard on, round by round."""
    few, many = found[0], found[-1]
    if few is many:
        return {}
    rates = [[one.per_second for one in part.rounds if one.guard] for part in (many, few)]
    name = f"{many.scenario.clients} clients / {few.scenario.clients}"
    return {name: interval([a / b for a, b in zip(*rates, strict=True)])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if a request failed or the two sides differ."""
    chosen = parser().parse_args(arguments)
    with TemporaryDirectory() as folder:
        found = asyncio.run(_main(chosen, Path(folder)))
    print(save(chosen.name, found, [__doc__ or ""], chosen.out))
    parts: list[Found] = found["scenarios"]
    good = all(not part.differing and set(one.outcomes) == {"ok"} for part in parts for one in part.rounds)
    return 0 if good else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving.load", description=__doc__)
    made.add_argument("--clients", type=int, nargs="+", default=[1, 32], help="most requests in flight")
    made.add_argument("--rate", type=float, default=inf, help="arrivals per second; inf: without a pause")
    made.add_argument("--requests", type=int, default=192, help="in each round")
    made.add_argument("--pairs", type=int, default=6, help="rounds with the guard, and as many without")
    made.add_argument("--tokens", type=int, default=16, help="longest reply")
    made.add_argument("--stream-share", type=float, default=0.5)
    made.add_argument("--prompts", type=int, default=48, help="different prompts")
    made.add_argument("--engine", default="transformers")
    made.add_argument("--name", default="serving-load", help="of the results file")
    made.add_argument("--out", type=Path, default=FOLDER)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
