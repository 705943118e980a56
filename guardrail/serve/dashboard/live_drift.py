"""Whether live scores still look like the calibration: `guardrail.calibrate.drift`, on columns."""

from __future__ import annotations

import numpy as np

from guardrail.calibrate.drift import DriftReport, RateDrift, rate_drift, score_drift
from guardrail.calibration.values import Calibration
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.serve.dashboard.firing import benign_of
from guardrail.serve.dashboard.table import Records


def live_drift(records: Records, plan: Plan, calibration: Calibration, left_out: int) -> DriftReport | None:
    """Each prompt counts once. None if nothing was scored. `left_out` requests were scored with others."""
    scored = records.where(records.marked(records.scores))
    once = _once(scored)
    known = [
        (rule, condition)
        for rule in plan.rules
        for condition in rule.conditions
        if benign_of(condition, calibration) is not None
    ]
    scores = {(c.trait, c.layer): once.scored(rule.id, c.trait, c.layer)["score"] for rule, c in known}
    rates = [_rate(once, rule, c, calibration) for rule, c in known]
    drifts = [
        score_drift(trait, layer or 0, found, calibration, 0.0)
        for (trait, layer), found in scores.items()
        if len(found)
    ]
    if not drifts:
        return None
    return DriftReport(
        records=len(once),
        repeated=len(scored) - len(once),
        without_scores=len(records) - len(scored),
        other_vectors=left_out,
        other_calibration=0,
        harmful_share=0.0,
        rates=tuple(one for one in rates if one is not None),
        scores=tuple(drifts),
    )


def _once(records: Records) -> Records:
    """The first request with each prompt."""
    _, first = np.unique(records.requests["prompt"], return_index=True)
    chosen = np.zeros(len(records), dtype=bool)
    chosen[first] = True
    return records.where(chosen)


def _rate(
    records: Records, rule: Rule, condition: CompiledCondition, calibration: Calibration
) -> RateDrift | None:
    found = records.scored(rule.id, condition.trait, condition.layer)["score"]
    if not len(found):
        return None
    above = condition.fires == "above"
    fired = found >= condition.threshold if above else found <= condition.threshold
    key = (rule.id, condition.trait, condition.layer or 0, condition.threshold)
    return rate_drift(key, int(fired.sum()), len(found), "upper" if above else "lower", calibration, 0.0)
