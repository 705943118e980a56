from dataclasses import replace

import pytest
from worlds import benign, calibration, loaded, rule, world

from guardrail.calibration.benign import BenignReplies
from guardrail.policy.alarms import Drift
from guardrail.policy.model import Monitor
from guardrail.policy.rates import Rate, condition_rate, rule_rate, set_rate
from guardrail.policy.rules import CompiledCondition
from guardrail.statistics.conformal import fpr_interval, observed_fpr
from guardrail.testing import hand_made_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


def conditions(*fprs):
    return [{"trait": "evil", "layer": 1 + i, "threshold": {"fpr": fpr}} for i, fpr in enumerate(fprs)]


def several(kind, *fprs):
    return {"id": "s", kind: conditions(*fprs), "action": "block"}


def rates(folder, *rules, **keys):
    result = loaded(folder, *rules, **keys)
    return set_rate(result.plan, result.calibration), result


def test_a_calibrated_threshold_has_its_target_and_interval(folder):
    _, result = rates(folder, rule(threshold={"fpr": 0.01}))
    found = condition_rate(result.plan.rules[0].conditions[0], result.calibration)
    assert found == Rate(0.01, *fpr_interval(999, 0.01), 999)


@pytest.mark.parametrize("threshold", [2.0, {"percentile": 98}, {"raw": 5.0}])
def test_any_other_threshold_has_the_rate_seen_on_benign_prompts(folder, threshold):
    _, result = rates(folder, rule(threshold=threshold))
    found = condition_rate(result.plan.rules[0].conditions[0], result.calibration)
    assert found.low < found.value < found.high
    assert 0.01 < found.value < 0.04


def test_firing_below_counts_the_lower_tail(folder):
    _, result = rates(folder, rule(threshold=-2.0, fires="below"))
    assert 0.01 < condition_rate(result.plan.rules[0].conditions[0], result.calibration).value < 0.04


def test_the_set_is_bounded_by_the_sum_of_what_is_enforced(folder):
    shadow = rule(id="r", threshold={"fpr": 0.5}, mode="shadow")
    total, _ = rates(folder, rule(threshold={"fpr": 0.01}), rule(id="q", threshold={"fpr": 0.02}), shadow)
    assert total.value == pytest.approx(0.03)
    assert total.bound
    assert total.low == fpr_interval(999, 0.02)[0]


def test_the_bound_is_at_most_one(folder):
    rules = [rule(id=f"p{i}", threshold={"fpr": 0.6}) for i in range(3)]
    total, _ = rates(folder, *rules)
    assert (total.value, total.high) == (1.0, 1.0)


def test_any_of_adds_up_and_all_of_is_bounded_by_the_rarest(folder):
    for kind, expected in (("any_of", 0.06), ("all_of", 0.01)):
        _, result = rates(folder, several(kind, 0.01, 0.05))
        found = rule_rate(result.plan.rules[0], result.calibration)
        assert found.value == pytest.approx(expected)
        assert found.bound


def test_without_a_calibration_the_rate_is_unknown(folder):
    total, result = rates(folder, rule(threshold={"raw": 1.0}), calibration=None)
    assert total is None
    assert rule_rate(result.plan.rules[0], None) is None


def test_nothing_enforced_fires_never(folder):
    total, _ = rates(folder, rule(mode="shadow"), allow_empty=True)
    assert total.value == 0


def test_the_paper_calibration_is_standard(folder):
    assert calibration().probes["evil"][1].n == 999


CONDITION = CompiledCondition(trait="evil", layer=1, reading=0, threshold=3.0, raw=3.0)
MONITOR = Monitor(statistic="max", window=1)
REPLIES = BenignReplies(
    mean=0.0,
    sd=1.0,
    turn_mean=0.0,
    turn_sd=1.0,
    highest={"max 1": benign(1, 500)},
    lowest={"max 1": benign(2, 300)},
)
TABLE = replace(calibration(), replies={"evil": {1: REPLIES}})


def seen(known, raw, tail):
    return Rate(*observed_fpr(known.beyond(raw, tail), known.n), known.n)


def test_the_rate_on_prompts_is_counted_on_the_side_that_fires():
    known = TABLE.probes["evil"][1]
    assert condition_rate(CONDITION, TABLE) == seen(known, 3.0, "upper")
    below = replace(CONDITION, fires="below", raw=-1.0)
    assert condition_rate(below, TABLE) == seen(known, -1.0, "lower")


def test_the_rate_per_reply_is_that_of_the_extremes_on_the_side_that_fires():
    assert condition_rate(CONDITION, TABLE, MONITOR) == seen(REPLIES.highest["max 1"], 3.0, "upper")
    below = replace(CONDITION, fires="below", raw=-1.0)
    assert condition_rate(below, TABLE, MONITOR) == seen(REPLIES.lowest["max 1"], -1.0, "lower")
    calibrated = replace(CONDITION, fpr=0.05)
    assert condition_rate(calibrated, TABLE, MONITOR) == Rate(0.05, *fpr_interval(500, 0.05), 500)


@pytest.mark.parametrize(
    ("condition", "monitor"),
    [
        (replace(CONDITION, layer=None), None),
        (replace(CONDITION, drift=Drift(statistic="cusum", reading=0)), None),
        (replace(CONDITION, trait="vice"), None),
        (replace(CONDITION, layer=9), None),
        (replace(CONDITION, trait="vice"), MONITOR),
        (replace(CONDITION, layer=2), MONITOR),
        (CONDITION, Monitor(statistic="ema")),
    ],
)
def test_what_the_calibration_does_not_hold_has_no_rate(condition, monitor):
    assert condition_rate(condition, TABLE, monitor) is None


def rule_of(*conditions, **keys):
    return replace(hand_made_plan().rules[0], conditions=conditions, **keys)


COMMON, RARE = replace(CONDITION, fpr=0.05), replace(CONDITION, fpr=0.01)
UNKNOWN = replace(CONDITION, layer=9)


def test_all_of_is_bounded_by_the_rarest_of_the_conditions_that_are_known():
    high = fpr_interval(999, 0.01)[1]
    expected = Rate(0.01, 0.0, high, 999, bound=True)
    assert rule_rate(rule_of(COMMON, RARE, require_all=True), TABLE) == expected
    assert rule_rate(rule_of(RARE, UNKNOWN, require_all=True), TABLE) == expected
    assert rule_rate(rule_of(UNKNOWN, UNKNOWN, require_all=True), TABLE) is None


def test_any_of_is_unknown_if_one_of_its_conditions_is():
    (low, high), (rare_low, rare_high) = fpr_interval(999, 0.05), fpr_interval(999, 0.01)
    found = rule_rate(rule_of(COMMON, RARE, require_all=False), TABLE)
    assert low > rare_low
    assert found == Rate(pytest.approx(0.06), low, pytest.approx(high + rare_high), 999, bound=True)
    assert rule_rate(rule_of(COMMON, UNKNOWN, require_all=False), TABLE) is None


def test_a_single_condition_is_its_own_rate_however_it_was_written():
    for require_all in (True, False):
        assert not rule_rate(rule_of(COMMON, require_all=require_all), TABLE).bound


def test_a_rule_about_replies_has_the_rate_of_its_monitor():
    found = rule_rate(rule_of(COMMON, monitor=MONITOR), TABLE)
    assert found == Rate(0.05, *fpr_interval(500, 0.05), 500)


def test_the_bound_of_a_set_counts_the_fewest_prompts_and_the_likeliest_part():
    plan = hand_made_plan()
    rules = (rule_of(COMMON, id="a"), rule_of(UNKNOWN, id="b", mode="shadow"))
    replies = (rule_of(RARE, id="c", monitor=MONITOR),)
    found = set_rate(replace(plan, rules=rules, reply_rules=replies), TABLE)
    assert (found.value, found.n, found.bound) == (pytest.approx(0.06), 500, True)
    assert found.low == fpr_interval(999, 0.05)[0]
    assert set_rate(replace(plan, rules=(rules[0],)), TABLE) == Rate(0.05, *fpr_interval(999, 0.05), 999)
    unknown = (rule_of(COMMON), rule_of(UNKNOWN))
    assert set_rate(replace(plan, rules=unknown), TABLE) is None


def test_a_bound_is_no_lower_end_of_a_set():
    plan = hand_made_plan()
    rules = (rule_of(RARE, id="a"), rule_of(COMMON, COMMON, id="b", require_all=False))
    assert set_rate(replace(plan, rules=rules), TABLE).low == fpr_interval(999, 0.01)[0]


def test_nothing_enforced_has_a_rate_of_zero_from_no_prompts():
    found = set_rate(replace(hand_made_plan(), rules=()), TABLE)
    assert found == Rate(0, 0.0, 0, 0, bound=True)
