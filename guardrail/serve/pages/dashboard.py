"""`/`: what the guard did, whether it is right, and what it costs."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guardrail.pipeline.cancellation import in_thread
from guardrail.serve.dashboard.board import SHOWN_ACTIONS, WINDOWS, Asked, Board, board
from guardrail.serve.dashboard.live import recent_of
from guardrail.serve.dashboard.recent import Recent
from guardrail.serve.health import ready
from guardrail.serve.keys import Right
from guardrail.serve.pages import charts
from guardrail.serve.pages.site import Page, Site

PATH = "/"
RIGHTS: tuple[Right, ...] = ("metrics", "admin", "review")
LOOK_S, PAUSE_S = 0.15, 0.05
"""How long a visitor waits for the log to be read, and the pause between steps of the rest."""


def router(site: Site) -> APIRouter:
    """The route."""
    routes, guard = APIRouter(), site.service.guard
    recent = recent_of(guard)
    reading = _InBackground(recent)

    @routes.get(PATH)
    async def show(request: Request) -> Response:
        visitor = await site.visitor(request, RIGHTS)
        asked = _asked(request.query_params)
        found = await in_thread(lambda: board(guard, recent.update(LOOK_S), asked))
        reading.go_on(found.reading.complete)
        state = ready(site.service)
        values: dict[str, Any] = {
            "board": found,
            "state": state,
            "charts": charts,
            "clock": clock,
            "windows": WINDOWS,
            "kinds": SHOWN_ACTIONS,
            "now": datetime.now(UTC).isoformat(),
            "audit_failing": guard.audit.failing,
            "headlines": _headlines(found),
        }
        return await in_thread(lambda: site.render(visitor, "dashboard.html.j2", PATH, **values))

    return routes


class _InBackground:
    """Reads the rest of a long log, in small steps, once somebody has asked for the page."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent
        self._task: asyncio.Task[None] | None = None

    def go_on(self, complete: bool) -> None:
        """Unless it does so already."""
        if not complete and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            found = await asyncio.to_thread(self._recent.update)
            if found.complete or found.problem:
                return
            await asyncio.sleep(PAUSE_S)


def _asked(query: Mapping[str, str]) -> Asked:
    """What the address says; what makes no sense is as if it were not there."""
    last = query.get("last", "")
    threshold = _number(query.get("threshold", ""))
    return Asked(
        last=int(last) if last in map(str, WINDOWS) else WINDOWS[1],
        policy=query.get("policy", "")[:100],
        condition=_place(query.get("condition", "0")),
        threshold=threshold,
        promote=query.get("promote", "")[:100],
    )


def _place(text: str) -> int:
    """A place in a list; -1, which is none, for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else -1


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e9 else None


def _headlines(found: Board) -> list[str]:
    """The sentences that answer most visitors: what was blocked, is a policy too strict, drift, the cost."""
    said = [_blocked(found), _unread(found), _strict(found), _drifted(found), _costs(found)]
    return [line for line in said if line]


def _blocked(found: Board) -> str:
    day = found.day
    if not day.requests:
        return "No request today (UTC) so far."
    parts = [f"{one.count:,} {_why(one.policy, one.error)}" for one in day.deeds if one.action == "block"]
    share = f"{100 * day.blocked / day.requests:.1f} %"
    text = f"Today (UTC) {day.blocked:,} of {day.requests:,} requests were blocked ({share})"
    return f"{text}: {', '.join(parts)}." if parts else f"{text}."


def _why(policy: str, error: str) -> str:
    return f"by {policy}" if policy else f"because of an error ({error or 'other'})"


def _unread(found: Board) -> str:
    trouble = found.day.trouble
    if not trouble.not_evaluated:
        return ""
    return (
        f"{trouble.not_evaluated:,} of today's requests were not evaluated; "
        f"{trouble.fail_open:,} of them were let through all the same."
    )


def _strict(found: Board) -> str:
    strict = [one.rule.id for one in found.firings if one.strictness == "too strict"]
    some = [one.rule.id for one in found.firings if one.strictness == "some false alarms"]
    among = f"Among the newest {found.window:,} requests"
    if strict:
        text = f"{among}, harmless traffic explains at least half of what fires."
        return f"Probably too strict: {', '.join(strict)}. {text}"
    if some:
        text = f"some false alarms are to be expected of {', '.join(some)}"
        return f"{among}, no policy is plainly too strict; {text}."
    if any(one.strictness == "not too strict" for one in found.firings):
        return f"{among}, no policy looks too strict."
    return f"{among}, too little fired to say whether a policy is too strict."


def _drifted(found: Board) -> str:
    drift = found.drift
    if drift is None:
        return f"Whether scores still look like the calibration is unknown. {found.drift_problem}"
    names = [f"scores of {one.trait}" for one in drift.scores if one.drifted]
    names += [f"how often {one.policy} fires" for one in drift.rates if one.drifted]
    if names:
        text = "no longer as in the calibration, so thresholds may not hold what they promise"
        return f"Drift: {', '.join(dict.fromkeys(names))}: {text}."
    if drift.distance is None:
        return f"Too few prompts ({drift.records:,}) to say whether scores still look like the calibration."
    return f"Scores still look like the calibration ({drift.records:,} distinct prompts)."


def _costs(found: Board) -> str:
    known = found.day.cost or found.cost
    if known is None:
        return "No request has reached the model yet, so the guard has cost nothing."
    when = "Today" if found.day.cost else f"Among the newest {found.window:,} requests"
    return (
        f"{when} the guard took {known.guard.median:.2g} ms of a request (median; 95 % within "
        f"{known.guard.p95:.2g} ms): {100 * known.share:.1f} % of what guard and prompt took together."
    )


def clock(time: float) -> str:
    """A Unix time for people, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%d %b %H:%M:%S")


PAGE = Page(PATH, "Dashboard", RIGHTS, router)
