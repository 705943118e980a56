"""From what an action asks for to directions and limits."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import calibration

from guardrail.policy.steering import SpecError, build_steering, recheck_layer, steered_layers
from guardrail.types import SteerSpec
from guardrail.vectors.values import TraitVector

VECTOR = TraitVector.from_difference("evil", np.random.default_rng(0).normal(size=(5, 32)) * 7)


def build(vector=VECTOR, table=None, floor=False, **keys):
    return build_steering(SteerSpec(**keys), "p", vector, 2, table, floor)


def test_without_layers_the_policys_own_is_steered():
    assert build(operator="ablate").layers == (2,)


def test_all_layers_leave_out_what_is_unusable():
    vector = TraitVector("evil", VECTOR.steering, VECTOR.probe, VECTOR.offset, unusable=(4,))
    assert build(vector, operator="ablate", layers="all").layers == (1, 2, 3)
    assert build(operator="add", layers="incremental", coefficient=-1.0).layers == (1, 2, 3, 4)


def test_layers_are_sorted_and_single():
    assert build(operator="ablate", layers=(4, 1, 4)).layers == (1, 4)


@pytest.mark.parametrize("layer", [0, 5, -1])
def test_a_layer_that_is_none_cannot_be_steered(layer):
    with pytest.raises(SpecError, match=f"layer {layer} cannot be steered; layers are 1 to 4"):
        build(operator="ablate", layers=(layer,))


def test_add_is_a_multiple_of_the_raw_vector():
    steering = build(operator="add", coefficient=-1.5, layers=(2, 3))
    for row, direction in zip(steering.layers, steering.directions, strict=True):
        np.testing.assert_allclose(direction, -1.5 * VECTOR.steering[row], rtol=1e-6)
        assert direction.dtype == np.float32


def test_incremental_directions_add_up_to_the_last_vector():
    steering = build(operator="add", coefficient=2.0, layers="incremental")
    expected = 2 * (VECTOR.steering[4] - VECTOR.steering[0])
    np.testing.assert_allclose(sum(steering.directions), expected, atol=1e-4)


@pytest.mark.parametrize("operator", ["ablate", "cap"])
def test_ablate_and_cap_act_along_unit_vectors(operator):
    steering = build(operator=operator, limit=1.0, layers="all")
    for row, direction in zip(steering.layers, steering.directions, strict=True):
        assert np.linalg.norm(direction) == pytest.approx(1, rel=1e-5)
        assert direction @ VECTOR.steering[row] == pytest.approx(
            np.linalg.norm(VECTOR.steering[row]), rel=1e-5
        )


def test_a_cap_is_a_number_or_a_benign_percentile_of_each_layer():
    assert build(operator="cap", limit=1.5, layers=(1, 2)).limits == (1.5, 1.5)
    table = calibration()
    limits = build(operator="cap", percentile=75.0, layers=(1, 2), table=table).limits
    assert limits == tuple(table.steering["evil"][row].percentile(75) for row in (1, 2))


def test_a_percentile_needs_a_calibration_of_every_steered_layer():
    with pytest.raises(SpecError, match="needs a calibration"):
        build(operator="cap", percentile=75.0)


def test_a_policy_that_fires_below_has_a_floor():
    assert build(operator="cap", limit=0.0, floor=True).floor


def test_other_operators_have_no_limits():
    assert build(operator="ablate").limits == build(operator="add", coefficient=1.0).limits == ()


def test_recheck_reads_the_first_layer_above_or_the_last():
    assert recheck_layer(build(operator="ablate", layers=(1, 2)), VECTOR) == 3
    assert recheck_layer(build(operator="ablate", layers=(4,)), VECTOR) == 4


def test_steered_layers_of_nothing_named():
    assert steered_layers(SteerSpec(operator="ablate"), VECTOR, 3) == (3,)


def test_steering_says_whose_it_is():
    steering = build(operator="ablate", layers=(3,))
    assert (steering.policy, steering.trait, steering.operator, steering.layers) == (
        "p",
        "evil",
        "ablate",
        (3,),
    )
    assert not steering.floor


def test_a_percentile_needs_a_calibration_that_holds_every_layer():
    table = calibration()
    part = {row: table.steering["evil"][row] for row in (1, 2)}
    for steering in ({"evil": part}, {"sycophancy": table.steering["sycophancy"]}):
        with pytest.raises(SpecError):
            build(operator="cap", percentile=75.0, layers=(2, 3), table=replace(table, steering=steering))
    with pytest.raises(SpecError):
        build(operator="cap", layers=(2, 3), table=table)


def test_a_number_wins_over_a_percentile():
    assert build(operator="cap", limit=1.5, percentile=75.0, table=calibration()).limits == (1.5,)


def test_an_unusable_layer_that_was_named_cannot_be_steered():
    vector = TraitVector("evil", VECTOR.steering, VECTOR.probe, VECTOR.offset, unusable=(4,))
    with pytest.raises(SpecError):
        build(vector, operator="ablate", layers=(3, 4))
    assert recheck_layer(build(vector, operator="ablate", layers=(3,)), vector) == 3
    assert recheck_layer(build(vector, operator="ablate", layers=(1,)), vector) == 2


def test_only_add_is_incremental():
    steering = build(operator="ablate", layers="incremental")
    for row, direction in zip(steering.layers, steering.directions, strict=True):
        assert direction @ VECTOR.steering[row] == pytest.approx(
            np.linalg.norm(VECTOR.steering[row]), rel=1e-5
        )
