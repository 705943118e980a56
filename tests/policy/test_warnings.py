"""What valid policies are warned about."""

import pytest
from worlds import loaded, rule, world


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
