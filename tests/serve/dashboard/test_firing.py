"""Summaries of scores say what counting by hand says."""

from dataclasses import replace

import numpy as np
import pytest
from traffic import lines, traffic

from guardrail.calibrate.drift import drift
from guardrail.files.yaml import read_document
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import default_policies, load
from guardrail.serve.dashboard import activity, cost, firing
from guardrail.serve.dashboard.live_drift import live_drift
from guardrail.serve.dashboard.recent import Recent


def policies(**modes):
    content = dict(read_document(default_policies("demo")).data)
    content["policies"] = [{**one, "mode": modes.get(one["id"], "enforce")} for one in content["policies"]]
    return load(content, None, Plugins([]))


ACTIVE = policies(**{"careful-facts": "shadow"})
PLAN, CALIBRATION = ACTIVE.plan, ACTIVE.calibration
RECORDS = list(traffic(PLAN, 1500, harmful=0.2, broken=0.01))


def table(records):
    recent = Recent(None)
    for line in lines(records):
        recent.add(line)
    return recent.update().records


SEEN = table(RECORDS)
SCORED = firing.comparable(SEEN, PLAN)


def scores(policy):
    return [s for r in RECORDS for s in r.decision.scores if s.policy == policy]


def test_firings_are_those_of_the_log():
    found = {one.rule.id: one for one in firing.firings(SCORED, PLAN, CALIBRATION)}
    assert set(found) == {rule.id for rule in PLAN.rules}
    for policy, one in found.items():
        assert (one.evaluated, one.fired) == (len(scores(policy)), sum(s.fired for s in scores(policy)))
        (histogram,) = one.histograms
        assert histogram.counts.sum() == one.evaluated
        assert histogram.expected.sum() == pytest.approx(one.evaluated)


@pytest.mark.parametrize("threshold", [-1.0, 2.0, 4.0, 9.0])
def test_another_threshold_does_what_counting_says(threshold):
    rule = PLAN.rule("to-a-person")
    found = firing.what_if(SCORED, PLAN, rule, 0, threshold)
    now, then = (
        np.array([test(s) for s in scores(rule.id)])
        for test in (lambda s: s.fired, lambda s: s.score >= threshold)
    )
    assert (found.fires_now, found.fires_then) == (now.sum(), then.sum())
    assert (found.added, found.removed) == ((then & ~now).sum(), (now & ~then).sum())
    assert found.then.low <= then.mean() <= found.then.high
    blocked = np.array([r.decision.action == "block" for r in RECORDS if r.decision.scores])
    assert found.acted == ((now != then) & ~blocked).sum()


def test_a_score_exactly_at_the_threshold_fires():
    rule = PLAN.rule("no-malice")
    exact = max(s.score for s in scores(rule.id))
    assert firing.what_if(SCORED, PLAN, rule, 0, exact).fires_then == 1
    assert firing.what_if(SCORED, PLAN, rule, 0, float(np.nextafter(exact, 99))).fires_then == 0


def test_shadows_say_what_they_would_have_done():
    (one,) = firing.shadows(SCORED, PLAN)
    fired = [r for r in RECORDS if "careful-facts" in r.decision.fired]
    assert (one.rule.id, one.fired) == ("careful-facts", len(fired))
    assert one.alone == sum(r.decision.action == "allow" for r in fired)
    assert sum(one.would.values()) == len(fired)


def test_requests_of_other_vectors_are_left_out():
    other = [replace(r, decision=replace(r.decision, vectors_sha256="0" * 64)) for r in RECORDS[:200]]
    mixed = table([*other, *RECORDS[200:]])
    assert len(firing.comparable(mixed, PLAN)) == 1300
    assert firing.firings(firing.comparable(table(other), PLAN), PLAN, CALIBRATION) == []


@pytest.mark.parametrize(
    ("harmful", "fires", "verdict"), [(0.0, 0.01, "too strict"), (0.5, 0.01, "not too strict")]
)
def test_a_policy_is_too_strict_if_harmless_traffic_explains_what_it_fires_on(harmful, fires, verdict):
    plan = policies().plan
    rule = plan.rule("to-a-person")
    seen = table(traffic(plan, 3000, harmful=harmful, broken=0))
    # so that as many benign prompts fire as the calibration says
    cut = np.quantile(np.random.default_rng(1).normal(size=100_000), 1 - fires)
    moved = replace(rule, conditions=(replace(rule.conditions[0], threshold=float(cut)),))
    (found,) = firing.firings(seen, replace(plan, rules=(moved,)), CALIBRATION)
    assert found.strictness == verdict


def test_a_handful_of_firings_says_nothing():
    few = table(RECORDS[:20])
    assert {one.strictness for one in firing.firings(few, PLAN, CALIBRATION)} <= {"too few", "unknown"}


def test_drift_is_that_of_the_verb():
    by_verb, here = drift(RECORDS, CALIBRATION), live_drift(SCORED, PLAN, CALIBRATION, 0)
    assert set(here.scores) == set(by_verb.scores)
    assert set(here.rates) == set(by_verb.rates)
    assert (here.records, here.without_scores) == (by_verb.records, by_verb.without_scores)


def test_what_was_done_adds_up():
    deeds = activity.deeds(SEEN)
    assert sum(one.count for one in deeds) == sum(r.decision.action != "allow" for r in RECORDS)
    block = next(one for one in deeds if one.policy == "no-malice")
    assert block.reasons[0].condition.trait == "evil"
    assert block.reasons[0].median >= block.reasons[0].condition.threshold
    (failed,) = [one for one in deeds if one.error]
    assert (failed.error, failed.count) == ("timeout", sum(r.decision.status == "error" for r in RECORDS))
    assert [one.id for one in activity.latest(SEEN, 3)] == [r.id for r in RECORDS[:-4:-1]]
    assert sum(activity.timeline(SEEN, ("block",)).counts["block"]) == activity.actions(SEEN)["block"]


def test_costs_and_errors_are_counted():
    found = cost.cost(SEEN)
    assert found.guard.median == pytest.approx(np.median([r.timing.guard for r in RECORDS]), rel=1e-6)
    open_ones = [
        replace(r, decision=replace(r.decision, action="allow"), outcome="answered")
        for r in RECORDS
        if r.decision.status == "error"
    ]
    seen = cost.trouble(table(open_ones))
    assert (seen.fail_open, seen.not_evaluated, seen.stopped) == (len(open_ones), len(open_ones), 0)
    assert cost.trouble(SEEN).stopped == len(open_ones)
