import pytest
from worlds import calibration, loaded, rule, world

from guardrail.policy.rates import Rate, condition_rate, rule_rate, set_rate
from guardrail.statistics.conformal import fpr_interval


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
