"""Requests of every kind to a server on the built-in model, and what each has to give: for soak and kills."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import httpx

from benchmarks.serving.asking import CHAT, Seen, ask
from benchmarks.serving.server import MODEL
from guardrail.demo.prompts import TOUR
from guardrail.types import Outcome

GREEDY = {"model": MODEL, "temperature": 0, "max_tokens": 6}
LONG = 64
PAUSE_S = 0.05
"""Of a slow reader, after each event."""
RETRIES = 400
REFUSED = ("malformed", "unauthorised")
LEAVING = ("leaving", "gone early")
WEIGHTS = {
    "harmless": 6,
    "malicious": 4,
    "flattering": 2,
    "unknowable": 2,
    "borderline": 2,
    "humorous": 1,
    "slow": 1,
    "malformed": 1.5,
    "unauthorised": 1,
    "leaving": 1.5,
    "gone early": 1,
}
OUTCOMES: Mapping[str, Outcome] = {
    "allow": "answered",
    "steer": "answered",
    "rephrase": "rephrased",
    "escalate": "escalated",
    "block": "blocked",
}
"""What the audit record says in the end, for each action."""
BAD_BODIES: Sequence[tuple[bytes, int]] = (
    (b'{"model": "demo", "messages": [', 400),
    (b'{"model": "demo", "messages": []}', 400),
    (b'{"model": "demo", "messages": [{"role": "king", "content": "x"}]}', 400),
    (b'{"model": "demo", "messages": [{"role": "user", "content": " "}]}', 400),
    (b'{"model": "demo", "messages": [{"role": "user", "content": "\xff"}]}', 400),
    (b'{"model": "other", "messages": [{"role": "user", "content": "x"}]}', 404),
    (b'{"model": "demo", "messages": [{"role": "user", "content": "x"}], "model": "demo"}', 400),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the plan. Its conversation is how the audit log knows it."""

    number: int
    case: str
    stream: bool
    draw: float
    run: str = ""

    @property
    def conversation(self) -> str:
        return f"mixed-{self.run}-{self.number}"


@dataclass(frozen=True, slots=True)
class Told:
    """What the client of one request was told in the end. `overloads` were answered 503 before."""

    asked: Asked
    seen: Seen
    overloads: int = 0


@dataclass
class Mixed:
    """Asks, and knows what each request has to give: the same as it gives alone."""

    http: httpx.AsyncClient
    alone: dict[tuple[str, bool], Seen] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    """What was wrong with the answers alone; empty unless the server is wrong already then."""

    async def learn(self) -> None:
        """Ask each case alone. The guard has to do what the tour of the built-in model promises."""
        for prompt in TOUR:
            for stream in (False, True):
                seen = (await self.answer(Asked(-1, prompt.name, stream, 0.0))).seen
                self.alone[prompt.name, stream] = seen
                if (seen.outcome, seen.action) != ("ok", prompt.expected):
                    self.unexplained.append(f"alone, {prompt.name}: {seen}")

    async def answer(self, asked: Asked) -> Told:
        """Send one request. One that finds the server full is sent again, as the server says."""
        for overloads in range(RETRIES):
            seen = await self._asked(asked)
            if seen.status != 503:
                return Told(asked, seen, overloads)
            await asyncio.sleep(float(seen.headers["retry-after"]) * (0.2 + 0.3 * asked.draw))
        raise TimeoutError(f"the server stayed full: {asked}")

    async def _asked(self, asked: Asked) -> Seen:
        headers = {"x-guardrail-conversation": asked.conversation}
        if asked.case == "malformed":
            return await self._malformed(asked, headers)
        if asked.case == "leaving":
            return await self._left(asked, headers)
        if asked.case == "gone early":
            return await self._gone(asked, headers)
        if asked.case == "unauthorised":
            headers["authorization"] = "Bearer gr-nobody"
        stream = asked.stream or asked.case == "slow"
        pause = PAUSE_S if asked.case == "slow" else 0.0
        return await ask(self.http, _body(asked.case, stream), headers, pause)

    async def _malformed(self, asked: Asked, headers: Mapping[str, str]) -> Seen:
        body, status = BAD_BODIES[int(asked.draw * len(BAD_BODIES))]
        kind = {"content-type": "application/json"}
        response = await self.http.post(CHAT, content=body, headers={**kind, **headers})
        seen = Seen(0.0, response.status_code, response.headers, whole=True, error="malformed")
        if response.status_code != status or not response.json()["error"]["message"]:
            seen.error = f"malformed body {body!r}: {response.text}"
        return seen

    async def _left(self, asked: Asked, headers: Mapping[str, str]) -> Seen:
        """Hang up after the first part of a long stream."""
        seen, body = Seen(perf_counter()), _body("harmless", stream=True) | {"max_tokens": LONG}
        async with self.http.stream("POST", CHAT, json=body, headers=headers) as response:
            seen.status, seen.headers = response.status_code, response.headers
            async for _ in response.aiter_raw():
                break
        return seen

    async def _gone(self, asked: Asked, headers: Mapping[str, str]) -> Seen:
        """Hang up at any moment, mostly before anything is answered."""
        task = asyncio.create_task(ask(self.http, _body("harmless", asked.stream), headers))
        await asyncio.wait([task], timeout=asked.draw)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        return Seen(0.0, error="gone") if task.cancelled() else task.result()

    def fault(self, told: Told) -> str | None:
        """What is wrong with an answer; None if it is right."""
        asked, seen = told.asked, told.seen
        if asked.case == "malformed":
            right = 400 <= seen.status < 500 and seen.error == "malformed"
        elif asked.case == "unauthorised":
            right = (seen.status, seen.error) == (401, "invalid_api_key")
        elif asked.case in LEAVING:
            right = seen.error == "gone" or (seen.status, seen.action) == (200, "allow")
        else:
            right = _same(seen, self.wanted(asked))
        return None if right else f"{asked}: {seen}"

    def wanted(self, asked: Asked) -> Seen:
        """The answer alone."""
        slow = asked.case == "slow"
        return self.alone["harmless" if slow else asked.case, asked.stream or slow]

    def outcome(self, asked: Asked) -> Sequence[Outcome]:
        """What the audit record may say; empty if there must be none."""
        if asked.case in REFUSED:
            return ()
        if asked.case in LEAVING:
            return ("cancelled", "answered")
        return (OUTCOMES[self.wanted(asked).action],)


def _body(case: str, stream: bool) -> dict[str, Any]:
    messages = {prompt.name: prompt.messages for prompt in TOUR}
    return {**GREEDY, "messages": messages.get(case, messages["harmless"]), "stream": stream}


def _same(seen: Seen, wanted: Seen) -> bool:
    mine, other = [
        (one.outcome, one.status, one.action, one.text, one.finish, bool(one.audit_id), bool(one.ticket_id))
        for one in (seen, wanted)
    ]
    return mine == other


def plan(first: int, count: int, run: str = "") -> list[Asked]:
    """Requests `first` to `first + count - 1`; the same in every `run`, but in conversations of its own."""
    draw = random.Random(first)
    cases = draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    return [Asked(first + i, case, draw.random() < 0.5, draw.random(), run) for i, case in enumerate(cases)]
