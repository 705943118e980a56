"""Numbers that no model computes with, and data that no file could hold."""

import pytest
from worlds import FINGERPRINT, loaded, policies, rule, world

from guardrail.errors import PolicyError
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.policy.model import PolicySet


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"threshold": 10**400}, "policies[0].threshold: a whole number of more than 64 bits"),
        ({"threshold": 1e39}, "policies[0].threshold: the threshold is out of range under this calibration"),
        ({"threshold": {"raw": -1e300}}, "policies[0].threshold: the threshold is out of range"),
        ({"layer": 10**400}, "policies[0].layer: a whole number of more than 64 bits"),
        ({"when": {"tags": ["\ud800"]}}, "policies[0].when.tags[0]: not valid Unicode"),
        ({"\ud800": 1}, "policies[0]: not valid Unicode"),
        ({"action": {"block": {"message": object()}}}, "policies[0].action.block.message: must be text"),
        (
            {"action": {"steer": {"operator": "add", "coefficient": -1e39}}},
            "policies[0].action.steer: the `coefficient` -1e+39 is out of range for this vector",
        ),
        (
            {"action": {"steer": {"operator": "cap", "at": 1e39}}},
            "policies[0].action.steer: the limit 1e+39 is out of range",
        ),
    ],
)
def test_what_no_model_can_use_is_a_problem_with_its_place(world_folder, keys, said):
    with pytest.raises(PolicyError) as caught:
        loaded(world_folder, rule(**keys))
    assert said in str(caught.value)


def test_a_mapping_that_contains_itself_is_too_deep(world_folder):
    rules = policies(world_folder, rule())
    rules["policies"].append(rules)
    with pytest.raises(PolicyError, match="nested too deeply"):
        load(rules, FINGERPRINT, Plugins())


@pytest.mark.parametrize("name", ["~nosuchuser/x", "a\0b", "\ud800", "", "/"])
@pytest.mark.parametrize("key", ["vectors", "calibration"])
def test_a_path_that_is_none_is_a_problem_of_its_key(world_folder, key, name):
    with pytest.raises(PolicyError) as caught:
        load(policies(world_folder, rule(), **{key: name}), FINGERPRINT, Plugins())
    assert str(caught.value).startswith(f"policies: {key}: ")


def test_settings_that_cannot_be_written_have_no_hash(world_folder):
    data = policies(world_folder, rule(message="\ud800"))
    with pytest.raises(PolicyError, match="policies: cannot be written as JSON"):
        load(PolicySet.model_validate(data), FINGERPRINT, Plugins())
