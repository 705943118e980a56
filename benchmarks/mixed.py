"""Mixed requests to a guard on the built-in model, and what each has to give: for `benchmarks.soak`."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from guardrail import Guard, PromptError
from guardrail.demo.prompts import TOUR
from guardrail.plugins.hookspecs import hookimpl

SHIPPED = Path(__file__).parents[1] / "policies" / "chatbot.yaml"
CASES = ("harmless", "malicious", "flattering", "unknowable", "humorous")
ODD = ("malformed", "cancelled", "slow")
KINDS = ("chat", "stream", "check")
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 6}
MALFORMED = ([], [{"role": "king", "content": "x"}], [{"role": "user", "content": " "}], [3])
TOO_SLOW = {
    "id": "too-slow",
    "trait": "slow",
    "threshold": 1.0,
    "action": "block",
    "when": {"tags": ["slow"]},
    "timeout_ms": 50,
}


class Slow:
    """A scorer that takes longer than its policy allows."""

    name = "slow"

    def score(self, messages: object) -> float:
        time.sleep(0.12)
        return 0.0

    @hookimpl
    def guardrail_scorers(self) -> list[Slow]:
        return [self]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the plan."""

    number: int
    case: str
    kind: str
    concurrent: bool
    """Asked from a task of an event loop, not from a thread."""

    @property
    def conversation(self) -> str:
        return f"soak-{self.number}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the caller saw: an outcome as in the audit log, and the text or the action."""

    outcome: str
    said: str = ""


class Subject:
    """The guard under test, with what each case gives if it is asked alone."""

    def __init__(self, work: Path) -> None:
        self.log, self.file = work / "audit.jsonl", work / "policies.yaml"
        self.write_policies(0)
        self.plugins = [Slow()]
        self.guard = Guard.from_pretrained("demo", self.file, plugins=self.plugins)
        self.messages = {prompt.name: prompt.messages for prompt in TOUR if prompt.name in CASES}
        self.alone = {(c, k): self.answer(Asked(-1, c, k, False)) for c in CASES for k in KINDS}

    def write_policies(self, number: int, broken: bool = False) -> None:
        """The shipped policies without the one that asks a person, and a slow one."""
        file = YAML(typ="safe").load(SHIPPED)
        kept = [policy for policy in file["policies"] if "escalate" not in policy["action"]]
        file |= {"policies": [*kept, TOO_SLOW], "audit": {"jsonl": str(self.log), "clear": ["conversation"]}}
        text = f"# {number}\n" + ("version: [" if broken else json.dumps(file))
        self.file.with_suffix(".new").write_text(text, encoding="utf-8")
        self.file.with_suffix(".new").replace(self.file)

    def wanted(self, asked: Asked) -> Seen:
        """What has to come of a request."""
        if asked.case == "malformed":
            return Seen("refused")
        if asked.case == "slow":
            return Seen("checked" if asked.kind == "check" else "blocked", "error")
        return Seen("cancelled") if asked.case == "cancelled" else self.alone[asked.case, asked.kind]

    def answer(self, asked: Asked) -> Seen:
        """Ask from a thread."""
        if asked.case == "malformed":
            with suppress(PromptError):
                self.guard.chat(random.choice(MALFORMED))  # pyright: ignore[reportArgumentType]
                return Seen("answered")
            return Seen("refused")
        if asked.case == "cancelled":
            return self._closed(asked)
        messages, options = self._arguments(asked)
        if asked.kind == "check":
            decision = self.guard.check(messages, **options).decision
            return Seen("checked", decision.status if asked.case == "slow" else decision.action)
        reply = self._streamed(asked) if asked.kind == "stream" else None
        reply = reply or self.guard.chat(messages, **options, **GREEDY)
        return Seen(reply.outcome, reply.decision.status if asked.case == "slow" else reply.text)

    async def answer_concurrently(self, asked: Asked) -> Seen:
        """Ask from a task. Cancelled ones are cancelled at any moment, in the queue as well."""
        if asked.case != "cancelled":
            return await self._awaited(asked)
        messages, options = self._arguments(asked)
        task = asyncio.ensure_future(self.guard.achat(messages, **options, temperature=0, max_new_tokens=48))
        await asyncio.sleep(random.random() * 0.3)
        task.cancel()
        with suppress(asyncio.CancelledError):
            return Seen((await task).outcome)
        return Seen("cancelled")

    async def _awaited(self, asked: Asked) -> Seen:
        if asked.case in ("malformed", "slow"):
            return await asyncio.to_thread(self.answer, asked)
        messages, options = self._arguments(asked)
        if asked.kind == "check":
            return Seen("checked", (await self.guard.acheck(messages, **options)).decision.action)
        if asked.kind == "chat":
            reply = await self.guard.achat(messages, **options, **GREEDY)
            return Seen(reply.outcome, reply.text)
        pieces = [piece async for piece in self.guard.astream(messages, **options, **GREEDY)]
        return Seen(self.alone[asked.case, "stream"].outcome, "".join(pieces))

    def _arguments(self, asked: Asked) -> tuple[list[dict[str, str]], dict[str, Any]]:
        tags = ("slow",) if asked.case == "slow" else ()
        messages = self.messages.get(asked.case, self.messages["harmless"])
        return messages, {"tags": tags, "conversation": asked.conversation}

    def _streamed(self, asked: Asked):
        messages, options = self._arguments(asked)
        stream = self.guard.stream(messages, **options, **GREEDY)
        list(stream)
        return stream.reply

    def _closed(self, asked: Asked) -> Seen:
        messages, options = self._arguments(asked)
        stream = self.guard.stream(messages, **options, temperature=0, max_new_tokens=48)
        next(stream)
        stream.close()
        return Seen("cancelled")


def plan(segment: int, count: int) -> list[Asked]:
    """The requests of a segment; the same in every run."""
    draw = random.Random(segment)
    cases = draw.choices([*CASES, *ODD], [6, 4, 3, 2, 2, 1, 1, 0.5], k=count)
    return [
        Asked(segment * count + i, case, draw.choice(KINDS), draw.random() < 0.5)
        for i, case in enumerate(cases)
    ]


def run(subject: Subject, asked: Sequence[Asked], threads: int) -> dict[Asked, Seen]:
    """Ask all, half of them from threads and half from tasks."""

    async def tasks() -> dict[Asked, Seen]:
        places = asyncio.Semaphore(threads)

        async def one(item: Asked) -> tuple[Asked, Seen]:
            async with places:
                return item, await _seen_soon(item)

        async def _seen_soon(item: Asked) -> Seen:
            try:
                return await subject.answer_concurrently(item)
            except Exception as error:
                return Seen(type(error).__name__, str(error))

        return dict(await asyncio.gather(*(one(item) for item in asked if item.concurrent)))

    def seen(item: Asked) -> tuple[Asked, Seen]:
        try:
            return item, subject.answer(item)
        except Exception as error:
            return item, Seen(type(error).__name__, str(error))

    with ThreadPoolExecutor(threads + 1) as pool:
        concurrent = pool.submit(asyncio.run, tasks())
        found = dict(pool.map(seen, (item for item in asked if not item.concurrent)))
    return found | concurrent.result()
