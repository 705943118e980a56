import pytest
from pydantic import ValidationError

from guardrail.policy.model import ActionUse, Condition, FprThreshold, Policy, PolicySet
from guardrail.types import FailureAction


def policy(**keys):
    return Policy.model_validate({"id": "p", "trait": "evil", "threshold": 1.0, "action": "block"} | keys)


def test_an_action_is_a_name_or_a_name_with_a_configuration():
    assert policy(action="block").action == ActionUse(name="block")
    assert policy(action={"steer": {"operator": "cap"}}).action == ActionUse(
        name="steer", config={"operator": "cap"}
    )
    assert policy(action={"block": None}).action == ActionUse(name="block")


@pytest.mark.parametrize("action", [["block"], {}, {"a": {}, "b": {}}, {"steer": "cap"}, 3, None])
def test_other_shapes_of_an_action_are_refused(action):
    with pytest.raises(ValidationError):
        policy(action=action)


def test_a_trait_is_short_for_one_condition():
    short = policy(layer=3, threshold={"fpr": 0.1}, fires="below")
    assert short.conditions == (
        Condition(trait="evil", layer=3, threshold=FprThreshold(fpr=0.1), fires="below"),
    )


@pytest.mark.parametrize("kind", ["all_of", "any_of"])
def test_several_conditions_stand_in_a_list(kind):
    conditions = [{"trait": "evil", "threshold": 1}, {"trait": "humor", "threshold": 2}]
    several = Policy.model_validate({"id": "p", kind: conditions, "action": "block"})
    assert [c.trait for c in several.conditions] == ["evil", "humor"]


@pytest.mark.parametrize(
    "keys",
    [
        {"all_of": [{"trait": "evil", "threshold": 1}]},
        {"trait": None, "threshold": None},
        {"threshold": None},
        {"trait": None, "any_of": [{"trait": "evil", "threshold": 1}]},
    ],
)
def test_exactly_one_kind_of_condition_with_its_own_threshold(keys):
    with pytest.raises(ValidationError):
        policy(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"threshold": True},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"threshold": "2"},
        {"layer": 0},
        {"layer": "last"},
        {"layer": True},
        {"id": "a b"},
        {"id": ""},
        {"mode": "on"},
        {"timeout_ms": 0},
        {"enforce": {"share": 1.1}},
        {"when": {"min_turns": 0}},
        {"nonsense": 1},
    ],
)
def test_strict_about_types_ranges_and_keys(keys):
    with pytest.raises(ValidationError):
        policy(**keys)


def test_a_policy_never_changes():
    with pytest.raises(ValidationError, match="frozen"):
        policy().id = "other"


def test_settings_of_the_policy_win_over_the_defaults():
    policies = PolicySet.model_validate(
        {
            "version": 1,
            "defaults": {"on_error": "escalate", "timeout_ms": 5},
            "policies": [{"id": "p", "trait": "evil", "threshold": 1, "action": "block", "timeout_ms": 7}],
        }
    )
    settings = policies.resolved(policies.policies[0])
    assert (settings.on_error, settings.timeout_ms, settings.mode) == ("escalate", 7, "enforce")


def test_the_safe_way_is_the_default():
    defaults = PolicySet(version=1).defaults
    closed: FailureAction = "block"
    assert (defaults.on_error, defaults.unsupported_input, defaults.on_truncate) == (closed, closed, "error")


@pytest.mark.parametrize("version", [0, 2, "1", 1.5, None, True])
def test_only_version_1(version):
    with pytest.raises(ValidationError):
        PolicySet.model_validate({"version": version})


CONDITIONS = [{"trait": "evil", "threshold": 1.0}, {"trait": "sycophancy", "threshold": 1.0}]


@pytest.mark.parametrize(
    "keys",
    [
        {"all_of": CONDITIONS, "fires": "below"},
        {"all_of": CONDITIONS, "layer": 2},
        {"any_of": CONDITIONS, "threshold": 1.0},
        {"any_of": CONDITIONS, "conversation": {}},
        {"trait": "evil", "threshold": 1.0, "conversation": {}},
        {"trait": "evil", "conversation": {"limit": 2.0}},
        {"trait": "evil", "conversation": {"weight": 0.5}},
        {"trait": "evil", "conversation": {"statistic": "ewma", "k": 0.5}},
        {"trait": "evil", "conversation": {"statistic": "ewma", "h": 5.0}},
    ],
)
def test_keys_that_belong_elsewhere_are_refused(keys):
    with pytest.raises(ValidationError):
        Policy.model_validate({"id": "p", "action": "block", **keys})


def test_the_same_conditions_without_them_are_accepted():
    for keys in ({"all_of": CONDITIONS}, {"any_of": CONDITIONS}, {"trait": "evil", "conversation": {}}):
        Policy.model_validate({"id": "p", "action": "block", **keys})
