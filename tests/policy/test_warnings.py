"""What valid policies are warned about."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import TRAITS, benign, calibration, loaded, rule, world

from guardrail.calibration.benign import Benign
from guardrail.calibration.slices import Slice
from guardrail.policy.rates import condition_rate, set_rate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"threshold": 0.01}, "p: the threshold of `evil` fires on 5"),
        ({"threshold": {"percentile": 5}}, "p: the threshold of `evil` fires on 95%"),
        ({"threshold": 0.01, "mode": "shadow"}, "p: the threshold of `evil` fires on 5"),
        ({"threshold": 0.01, "fires": "below"}, "p: the threshold of `evil` fires on 5"),
    ],
)
def test_a_threshold_that_fires_on_many_benign_prompts_is_warned_about(folder, keys, said):
    warnings = loaded(folder, rule(**keys), allow_empty=True).plan.warnings
    assert [warning[: len(said)] for warning in warnings] == [said]
    assert warnings[0].endswith(
        "of the calibration's benign prompts; a number is a score, {fpr: 0.01} a rate"
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"threshold": 2.0},
        {"threshold": {"fpr": 0.3}},
        {"threshold": 0.01, "mode": "off"},
        {"threshold": None, "trait": None, "layer": "auto"}
        | {"all_of": [{"trait": "evil", "threshold": 0.01}, {"trait": "sycophancy", "threshold": 0.01}]},
    ],
)
def test_rates_and_thresholds_that_must_hold_together_are_not_warned_about(folder, keys):
    assert loaded(folder, rule(**keys), allow_empty=True).plan.warnings == ()


SHIFTED = {
    trait: {layer: Benign.of(np.random.default_rng(layer).normal(3.0, 2.0, 200)) for layer in range(1, 5)}
    for trait in TRAITS
}
"""200 prompts one standard deviation above the benign ones."""


def on_slice(folder, threshold, probes=SHIFTED, worst_slice=False, **keys):
    one = Slice(source="", source_sha256="", prompts=200, duplicates=0, skipped=0, probes=probes)
    path = folder / "sliced.json"
    replace(calibration(), slices={"bank": one}, worst_slice=worst_slice).save(path)
    rules = rule(threshold=threshold, **keys)
    return loaded(folder, rules, allow_empty=True, calibration=str(path))


@pytest.mark.parametrize("threshold", [{"fpr": 0.01}, {"percentile": 99}, 2.4])
def test_a_slice_that_exceeds_the_rate_threefold_is_warned_about(folder, threshold):
    (warning,) = on_slice(folder, threshold).plan.warnings
    assert warning.startswith("p: fires on ")
    assert "of the slice `bank`, more than 3 times its rate of" in warning


@pytest.mark.parametrize(
    ("threshold", "keys"),
    [
        ({"fpr": 0.3}, {}),
        ({"fpr": 0.01}, {"mode": "off"}),
        ({"fpr": 0.01}, {"fires": "below"}),
        ({"fpr": 0.01}, {"worst_slice": True}),
    ],
)
def test_a_slice_within_three_times_the_rate_is_not_warned_about(folder, threshold, keys):
    assert on_slice(folder, threshold, **keys).plan.warnings == ()


def test_a_rate_on_a_small_slice_that_chance_explains_is_not_warned_about(folder):
    few = {t: {layer: benign(layer, 20) for layer in range(1, 5)} for t in TRAITS}
    edge = few["evil"][2].high[-1]
    found = on_slice(folder, {"raw": edge}, few)
    assert found.plan.warnings == ()
    assert condition_rate(found.plan.rules[0].conditions[0], found.calibration, slice="bank").value == 0.05


def test_with_the_worst_slice_the_rate_is_that_of_the_slice_that_decides(folder):
    found = on_slice(folder, {"fpr": 0.01}, worst_slice=True)
    condition = found.plan.rules[0].conditions[0]
    assert condition.slice == "bank"
    assert condition.raw == SHIFTED["evil"][2].conformal(0.01)
    there = condition_rate(condition, found.calibration, slice="bank")
    assert (there.value, there.n) == (0.01, 200)
    assert condition_rate(condition, found.calibration).value < 0.01


def test_the_set_on_a_slice_is_about_prompts_only(folder):
    reply = rule(id="r", stage="response", threshold={"raw": 1.0})
    path = folder / "sliced.json"
    on_slice(folder, {"fpr": 0.01})
    found = loaded(folder, rule(threshold={"fpr": 0.01}), reply, calibration=str(path))
    assert set_rate(found.plan, found.calibration) is None
    assert set_rate(found.plan, found.calibration, "bank").value > 0.03
