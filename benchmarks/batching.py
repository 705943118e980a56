"""`python -m benchmarks.batching`: many callers of one guard in one process, with the guard on and off.

Threads stream greedy replies without a pause, one after another, from one guard. Off means the same guard
under a policy file without policies. The file is swapped between rounds, which alternate (ABBA). Rounds of
one thread and of many alternate too. Before them, each reply is made alone by the engine `transformers`, from
a second model: every reply has to be that one. `processor` is the time of all cores for a request, which
other programs on the machine change less than the clock.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from benchmarks.real.results import save
from benchmarks.serving import policy_files
from guardrail import Guard
from guardrail.bench.ratios import Interval, Percentiles, interval, percentiles
from guardrail.demo.material import benign

FOLDER = Path(__file__).parent / "results"
GOALS = {"32 threads / 1": 2.5, "guard on / off": 0.97}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What came of one round. Times in milliseconds; `processor` for one request."""

    guard: bool
    threads: int
    requests: int
    per_second: float
    tokens_per_second: float
    processor: float
    first: Percentiles
    total: Percentiles
    equal: int
    """Replies that are, word for word, those of the same request alone."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One reply, with the seconds to its first piece and to its end."""

    text: str
    tokens: int
    first: float
    total: float


class Subject:
    """A guard, its prompts, and which policies are in force."""

    def __init__(self, guard: Guard, file: Path, policies: Mapping[str, object], tokens: int) -> None:
        self.guard, self._file, self._policies, self._tokens = guard, file, policies, tokens
        self.prompts: list[Any] = []
        self.alone: list[str] = []

    def put(self, on: bool) -> None:
        """Put the policies in force, or none."""
        policy_files.write(self._file, self._policies if on else {**self._policies, "policies": [], **EMPTY})
        assert self.guard.reload(), self.guard.policies.error

    def choose_prompts(self, alone: Guard, count: int) -> None:
        """Harmless prompts that no policy touches, and what the model says to each alone."""
        for one in benign(1, 3 * count, "test"):
            if len(self.prompts) == count:
                return
            reply = alone.chat(one.messages, temperature=0, max_new_tokens=self._tokens)
            if reply.decision.action == "allow":
                self.prompts.append(one.messages)
                self.alone.append(reply.text)

    def ask(self, i: int) -> Seen:
        """One reply, streamed."""
        began, first, pieces = perf_counter(), nan, list[str]()
        stream = self.guard.stream(self.prompts[i], temperature=0, max_new_tokens=self._tokens)
        for piece in stream:
            first = perf_counter() - began if not pieces else first
            pieces.append(piece)
        assert stream.reply is not None
        return Seen("".join(pieces), stream.reply.new_tokens, first, perf_counter() - began)

    def round(self, guard: bool, threads: int, requests: int) -> Round:
        """One round of so many requests."""
        order = [i % len(self.prompts) for i in range(requests)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.ask, order[: min(threads, 4)]))
            began, worked = perf_counter(), process_time()
            seen = list(pool.map(self.ask, order))
            seconds, worked = perf_counter() - began, process_time() - worked
        return Round(
            guard=guard,
            threads=threads,
            requests=requests,
            per_second=requests / seconds,
            tokens_per_second=sum(one.tokens for one in seen) / seconds,
            processor=1e3 * worked / requests,
            first=percentiles([1e3 * one.first for one in seen]),
            total=percentiles([1e3 * one.total for one in seen]),
            equal=sum(one.text == self.alone[i] for i, one in zip(order, seen, strict=True)),
        )


EMPTY = {"allow_empty": True}


def measured(subject: Subject, threads: Sequence[int], requests: Sequence[int], pairs: int) -> list[Round]:
    """Pairs of rounds with and without the guard, for each number of threads; who goes first alternates."""
    rounds: list[Round] = []
    for i in range(pairs):
        for on, (count, asked) in product((i % 2 == 0, i % 2 == 1), zip(threads, requests, strict=True)):
            subject.put(on)
            rounds.append(subject.round(on, count, asked))
            print(_line(rounds[-1]), flush=True)
    return rounds


def _line(one: Round) -> str:
    who = f"guard {'on ' if one.guard else 'off'} {one.threads:3} threads"
    speed = f"{one.per_second:6.2f} requests/s {one.tokens_per_second:7.1f} tokens/s {one.processor:6.0f} ms"
    first = f"first p50 {one.first.p50:.0f} p99 {one.first.p99:.0f} ms"
    return f"{who}: {speed}, {first}, equal {one.equal}/{one.requests}"


def compared(rounds: Sequence[Round]) -> dict[str, Interval]:
    """Ratios of throughput, round by round."""

    def of(guard: bool, threads: int) -> list[Round]:
        return [one for one in rounds if one.guard is guard and one.threads == threads]

    few, many = min(one.threads for one in rounds), max(one.threads for one in rounds)
    found = {f"{many} threads / {few}": _ratio(of(True, many), of(True, few))} if few < many else {}
    for threads in sorted({few, many}):
        on, off = of(True, threads), of(False, threads)
        found[f"guard on / off, {threads} threads"] = _ratio(on, off)
        pairs = zip(on, off, strict=True)
        found[f"guard off / on, {threads} threads, processor"] = interval(
            [b.processor / a.processor for a, b in pairs]
        )
    return found


def _ratio(over: Sequence[Round], under: Sequence[Round]) -> Interval:
    return interval([a.per_second / b.per_second for a, b in zip(over, under, strict=True)])


@contextmanager
def subject(chosen: argparse.Namespace, folder: Path) -> Iterator[Subject]:
    """The guard to be measured, with its prompts."""
    policies = policy_files.guarded(None) if chosen.model == "demo" else _pack(chosen.policies)
    file = policy_files.write(folder / "policies.yaml", policies)
    options: dict[str, Any] = {"dtype": chosen.dtype} if chosen.dtype else {}
    with Guard.from_pretrained(chosen.model, policies=file, engine=chosen.engine, **options) as guard:
        made = Subject(guard, file, policies, chosen.tokens)
        with Guard.from_pretrained(chosen.model, policies=file, **options) as alone:
            made.choose_prompts(alone, chosen.prompts)
        yield made


def _pack(name: str) -> dict[str, object]:
    from guardrail.files.yaml import read_document
    from guardrail.policy.loading import shipped_policies

    return {**read_document(shipped_policies()[name]).data, "defaults": policy_files.PATIENT}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if a ratio misses its goal."""
    chosen = parser().parse_args(arguments)
    with TemporaryDirectory() as folder, subject(chosen, Path(folder)) as made:
        rounds = measured(made, chosen.threads, chosen.requests, chosen.pairs)
    found = compared(rounds)
    facts = {"model": chosen.model, "dtype": chosen.dtype, "engine": chosen.engine, "goals": GOALS}
    print(save(chosen.name, {**facts, "ratios": found, "rounds": rounds}, [__doc__ or ""], chosen.out))
    for name, ratio in found.items():
        print(f"{name}: {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})")
    goal = [ratio.median >= GOALS["32 threads / 1"] for name, ratio in found.items() if " threads / " in name]
    return 0 if all(goal) else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    made.add_argument("--model", default="demo")
    made.add_argument("--dtype", help="of the weights; as stored unless given")
    made.add_argument(
        "--policies", default="chatbot", help="shipped policies, for a model that is not `demo`"
    )
    made.add_argument("--engine", default="transformers-batching")
    made.add_argument("--threads", type=int, nargs="+", default=[1, 32])
    made.add_argument("--requests", type=int, nargs="+", default=[16, 128], help="of a round, by threads")
    made.add_argument("--pairs", type=int, default=4)
    made.add_argument("--tokens", type=int, default=32, help="longest reply")
    made.add_argument("--prompts", type=int, default=48)
    made.add_argument("--name", default="batching", help="of the results file")
    made.add_argument("--out", type=Path, default=FOLDER)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
