"""Everything that the dashboard shows of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardrail.calibrate.drift import DriftReport
from guardrail.calibrate.policy_edit import PolicyEdit, enforced
from guardrail.errors import CalibrationError, GuardrailError, outline
from guardrail.policy.rules import Rule
from guardrail.serve.dashboard import activity, cost, firing
from guardrail.serve.dashboard.live_drift import live_drift
from guardrail.serve.dashboard.recent import Reading
from guardrail.serve.dashboard.table import Records

if TYPE_CHECKING:
    from guardrail.guard import Guard
    from guardrail.policy.loading import ActivePolicies

WINDOWS = (1_000, 10_000, 50_000, 100_000)
LATEST = 12
SHOWN_ACTIONS = ("block", "escalate", "rephrase", "steer")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the visitor chose: how many requests, another threshold, a shadow to be enforced."""

    last: int = WINDOWS[1]
    policy: str = ""
    condition: int = 0
    threshold: float | None = None
    promote: str = ""


@dataclass(frozen=True, slots=True)
class Day:
    """What happened since midnight (UTC)."""

    requests: int
    actions: dict[str, int]
    deeds: list[activity.Deed]
    cost: cost.Cost | None
    trouble: cost.Trouble

    @property
    def blocked(self) -> int:
        """Requests that were refused."""
        return self.actions.get("block", 0)


@dataclass(frozen=True, slots=True)
class Promotion:
    """What enforcing a shadow would do to the policy file; `problem` if that cannot be shown."""

    policy: str
    edit: PolicyEdit | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """The whole page. `window`: the newest requests; `scored`: those of them whose scores are comparable."""

    reading: Reading
    asked: Asked
    day: Day
    window: int
    scored: int
    latest: list[activity.Entry]
    timeline: activity.Timeline | None
    firings: list[firing.Firing]
    what_if: firing.WhatIf | None
    shadows: list[firing.Would]
    promotion: Promotion | None
    drift: DriftReport | None
    drift_problem: str
    cost: cost.Cost | None
    trouble: cost.Trouble


def board(guard: Guard, reading: Reading, asked: Asked) -> Board:
    """Summaries of what was read, for the policies in force."""
    active, window = guard.active, reading.records.newest(asked.last)
    plan, scored = active.plan, firing.comparable(window, active.plan)
    drift, problem = _drift(active, scored, len(window) - len(scored))
    tried = _asked_rule(active, asked)
    return Board(
        reading=reading,
        asked=asked,
        day=_day(reading.records.since(activity.midnight())),
        window=len(window),
        scored=len(scored),
        latest=activity.latest(reading.records, LATEST),
        timeline=activity.timeline(window, SHOWN_ACTIONS) if len(window) else None,
        firings=firing.firings(scored, plan, active.calibration),
        what_if=_tried(active, scored, tried, asked),
        shadows=firing.shadows(scored, plan),
        promotion=_promotion(active, asked.promote) if asked.promote else None,
        drift=drift,
        drift_problem=problem,
        cost=cost.cost(window),
        trouble=cost.trouble(window),
    )


def _day(records: Records) -> Day:
    return Day(
        requests=len(records),
        actions=activity.actions(records),
        deeds=activity.deeds(records) if len(records) else [],
        cost=cost.cost(records),
        trouble=cost.trouble(records),
    )


def _drift(active: ActivePolicies, scored: Records, left_out: int) -> tuple[DriftReport | None, str]:
    if active.calibration is None:
        return None, "The policies in force have no calibration, so nothing says what is normal."
    if not len(scored):
        text = "No request was scored with the vectors and the calibration in force"
        others = f" ({left_out:,} with others, or without scores)" if left_out else ""
        return None, f"{text}{others}: there is nothing to compare."
    try:
        found = live_drift(scored, active.plan, active.calibration, left_out)
    except CalibrationError as error:
        return None, f"The calibration does not fit: {error}."
    return found, "" if found else "The calibration has none of the traits that were scored."


def _asked_rule(active: ActivePolicies, asked: Asked) -> Rule | None:
    rules: Sequence[Rule] = active.plan.rules
    found = next((rule for rule in rules if rule.id == asked.policy), None)
    return found if found and 0 <= asked.condition < len(found.conditions) else None


def _tried(active: ActivePolicies, scored: Records, rule: Rule | None, asked: Asked) -> firing.WhatIf | None:
    if rule is None or asked.threshold is None:
        return None
    return firing.what_if(scored, active.plan, rule, asked.condition, asked.threshold)


def _promotion(active: ActivePolicies, policy: str) -> Promotion:
    if policy not in {rule.id for rule in active.plan.rules if rule.mode == "shadow"}:
        return Promotion(policy, None, f"There is no shadow policy `{policy}` in force.")
    if active.path is None:
        text = "The policies were not given as a file; write `mode: enforce` into this policy yourself."
        return Promotion(policy, None, text)
    try:
        return Promotion(policy, enforced(active.path, policy))
    except GuardrailError as error:
        return Promotion(policy, None, outline(error))
