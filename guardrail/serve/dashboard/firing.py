"""How often policies fire, how often they should, and what another threshold or another mode would do.

All from scores in the log, compared with the thresholds in force: requests that other vectors or another
calibration scored are left out, since their scores are in other units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.serve.dashboard.activity import share
from guardrail.serve.dashboard.table import Records
from guardrail.statistics.intervals import Estimate, paired_difference

Bools: TypeAlias = NDArray[np.bool_]
Strictness: TypeAlias = Literal["too strict", "some false alarms", "not too strict", "too few", "unknown"]
BINS = 48
FEW = 10
"""Firings below which nothing is said about how strict a policy is."""
MOSTLY, SOME = 0.5, 0.2
"""Shares of its firings that harmless traffic would explain, from which a policy is called too strict."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Live scores of one condition: `counts` [bins] between `edges` [bins + 1], and those expected of benign
    prompts by the calibration; None without one.
    """

    condition: CompiledCondition
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    expected: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Firing:
    """One policy at the thresholds in force, on `evaluated` requests.

    `outranked`: on how many of the requests on which it fired an enforced policy fired that does at least as
    much. `benign`: the share of benign prompts on which it fires, by the calibration; `explained`: the share
    of its firings that as many benign prompts would explain. None if the policy has several conditions.
    """

    rule: Rule
    evaluated: int
    fired: int
    outranked: int
    rate: Estimate
    benign: Estimate | None
    explained: float | None
    histograms: tuple[Histogram, ...]

    @property
    def rarer(self) -> bool:
        """Whether it fires less often than on benign prompts, so that these do not look like the traffic."""
        return self.benign is not None and self.rate.high < self.benign.low

    @property
    def strictness(self) -> Strictness:
        """In words. Supposes that harmless traffic looks like the calibration's prompts."""
        if self.fired < FEW:
            return "too few"
        if self.explained is None or self.rarer:
            return "unknown"
        if self.explained >= MOSTLY:
            return "too strict"
        return "some false alarms" if self.explained >= SOME else "not too strict"


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Another threshold of one condition on `evaluated` requests: shares that fire, and what changes.

    `added` and `removed` requests fire or no longer do; for `acted` of them the action would be another one,
    because no stronger policy fired as well.
    """

    evaluated: int
    threshold: float
    now: Estimate
    then: Estimate
    difference: Estimate
    fires_now: int
    fires_then: int
    added: int
    removed: int
    acted: int


@dataclass(frozen=True, slots=True)
class Would:
    """A shadow policy: what it would have done. `alone`: requests on which no enforced policy fired."""

    rule: Rule
    evaluated: int
    fired: int
    rate: Estimate
    alone: int
    would: Mapping[str, int]


def comparable(records: Records, plan: Plan) -> Records:
    """The requests that were scored with the vectors and the calibration in force."""
    own = (plan.vectors_sha256, plan.calibration_sha256)
    good = [(one.vectors, one.calibration) == own for one in records.hashes.values]
    return records.where(np.asarray(good, dtype=bool)[records.requests["hashes"]])


def firings(records: Records, plan: Plan, calibration: Calibration | None) -> list[Firing]:
    """Every policy about prompts that has scored some of these requests."""
    found = [_firing(records, plan, rule, calibration) for rule in plan.rules if rule.mode != "off"]
    return [one for one in found if one is not None]


def _firing(records: Records, plan: Plan, rule: Rule, calibration: Calibration | None) -> Firing | None:
    evaluated, hits = fires(records, rule)
    if not (n := int(evaluated.sum())):
        return None
    fired = int(hits.sum())
    benign = _benign_rate(rule, calibration)
    explained = None if benign is None or not fired else min(1.0, benign.value * n / fired)
    histograms = tuple(_histogram(records, rule, c, calibration) for c in rule.conditions if c.drift is None)
    outranked = int((hits & _outranked(records, plan, rule)).sum())
    return Firing(rule, n, fired, outranked, share(fired, n), benign, explained, histograms)


def fires(records: Records, rule: Rule, other: Mapping[int, float] | None = None) -> tuple[Bools, Bools]:
    """(evaluated [n], fires [n]) at the thresholds in force, or at others for some conditions by place."""
    n = len(records)
    evaluated, hits = np.zeros(n, dtype=bool), np.full(n, rule.require_all)
    for place, condition in enumerate(rule.conditions):
        scores = records.scored(rule.id, condition.trait, condition.layer)
        threshold = (other or {}).get(place, condition.threshold)
        own = np.zeros(n, dtype=bool)
        own[scores["row"]] = _holds(scores["score"], threshold, condition)
        evaluated[scores["row"]] = True
        hits = hits & own if rule.require_all else hits | own
    return evaluated, hits & evaluated


def _holds(scores: NDArray[np.float64], threshold: float, condition: CompiledCondition) -> Bools:
    return scores >= threshold if condition.fires == "above" else scores <= threshold


def what_if(records: Records, plan: Plan, rule: Rule, place: int, threshold: float) -> WhatIf | None:
    """Another threshold for the condition at this place of a rule; None if it scored none of these."""
    evaluated, now = fires(records, rule)
    _, then = fires(records, rule, {place: threshold})
    if not (n := int(evaluated.sum())):
        return None
    changed = now != then
    return WhatIf(
        evaluated=n,
        threshold=threshold,
        now=share(int(now.sum()), n),
        then=share(int(then.sum()), n),
        difference=paired_difference(now[evaluated].tolist(), then[evaluated].tolist()),
        fires_now=int(now.sum()),
        fires_then=int(then.sum()),
        added=int((then & ~now).sum()),
        removed=int((now & ~then).sum()),
        acted=int((changed & ~_outranked(records, plan, rule)).sum()),
    )


def _outranked(records: Records, plan: Plan, rule: Rule) -> Bools:
    """The requests [n] on which another enforced policy fired that does at least as much."""
    own = plan.strengths.get(rule.action, 0)
    others = [one.policy for one in records.conditions.values]
    strong = np.asarray([name != rule.id and _rank(plan, name) >= own for name in others])
    scores = records.scores
    return records.marked(scores[scores["fired"] & scores["enforced"] & strong[scores["condition"]]])


def _rank(plan: Plan, policy: str) -> int:
    """The strength of a policy's action; of one that is no longer there, the strongest."""
    rule = plan.rule(policy)
    return max(plan.strengths.values()) if rule is None else plan.strengths.get(rule.action, 0)


def shadows(records: Records, plan: Plan) -> list[Would]:
    """Every policy about prompts that is a shadow now, with what it would have done."""
    found = list[Would]()
    scores = records.scores
    enforced = records.marked(scores[scores["fired"] & scores["enforced"]])
    for rule in plan.rules:
        if rule.mode != "shadow":
            continue
        evaluated, hits = fires(records, rule)
        if n := int(evaluated.sum()):
            fired, alone = int(hits.sum()), int((hits & ~enforced).sum())
            would = records.names.counted(records.requests["would"][hits])
            found.append(Would(rule, n, fired, share(fired, n), alone, would))
    return found


def _benign_rate(rule: Rule, calibration: Calibration | None) -> Estimate | None:
    if len(rule.conditions) != 1:
        return None
    (condition,) = rule.conditions
    benign = benign_of(condition, calibration)
    if benign is None:
        return None
    beyond = benign.beyond(condition.raw, "upper" if condition.fires == "above" else "lower")
    return share(min(beyond, benign.n), benign.n)


def benign_of(condition: CompiledCondition, calibration: Calibration | None) -> Benign | None:
    """The calibration's distribution behind a condition, if it has one."""
    if calibration is None or condition.drift is not None:
        return None
    return calibration.probes.get(condition.trait, {}).get(condition.layer or 0)


def _histogram(
    records: Records, rule: Rule, condition: CompiledCondition, calibration: Calibration | None
) -> Histogram:
    scores = records.scored(rule.id, condition.trait, condition.layer)["score"]
    scores = scores[np.isfinite(scores)]
    ends = np.append(np.quantile(scores, (0.0005, 0.9995)) if len(scores) else [], condition.threshold)
    low, high = float(ends.min()), float(ends.max())
    margin = 0.06 * (high - low) or 1.0
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    benign = benign_of(condition, calibration)
    expected = None if benign is None else len(scores) * benign.shares(edges)
    return Histogram(condition, edges, counts.astype(np.int64), expected)
