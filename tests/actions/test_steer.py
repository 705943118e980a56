import pytest
from pydantic import ValidationError

from guardrail.actions.steer import Steer, SteerConfig
from guardrail.plugins.protocols import Otherwise
from guardrail.types import SteerSpec


def compiled(**config):
    return Steer().compile(SteerConfig.model_validate(config))


def test_add_suppresses_with_a_negative_coefficient():
    spec = compiled(operator="add", coefficient=-1.5)
    assert spec == SteerSpec(operator="add", coefficient=-1.5)


def test_amplifying_must_be_said():
    spec = compiled(operator="add", coefficient=2, amplify=True, layers="incremental")
    assert (spec.coefficient, spec.layers) == (2.0, "incremental")


def test_cap_takes_a_projection_or_a_percentile():
    assert compiled(operator="cap", at=3).limit == 3.0
    spec = compiled(operator="cap", at={"percentile": 75})
    assert (spec.limit, spec.percentile) == (None, 75.0)


@pytest.mark.parametrize(
    ("written", "expected"),
    [(None, None), (3, (3,)), ([2, 4], (2, 4)), ("all", "all")],
)
def test_layers_are_one_several_or_all(written, expected):
    assert compiled(operator="ablate", layers=written).layers == expected


def test_recheck_and_otherwise_reach_the_plan():
    spec = compiled(operator="ablate", recheck=True, otherwise="escalate")
    assert (spec.recheck, spec.otherwise) == (True, "escalate")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "operator"),
        ({"operator": "push"}, "must be `add`, `ablate` or `cap`"),
        ({"operator": "add"}, "`add` needs a `coefficient`"),
        ({"operator": "add", "coefficient": 0}, "a `coefficient` of 0 has no effect"),
        ({"operator": "add", "coefficient": 1.0}, "a positive `coefficient` needs `amplify: true`"),
        ({"operator": "add", "coefficient": -1.0, "amplify": True}, "`amplify` needs `add` with a positive"),
        ({"operator": "add", "coefficient": -1.0, "at": 2.0}, "`add` takes no `at`"),
        ({"operator": "add", "coefficient": float("nan")}, "finite"),
        ({"operator": "ablate", "coefficient": -1.0}, "`ablate` takes no `coefficient`"),
        ({"operator": "ablate", "amplify": True}, "`amplify` needs `add`"),
        ({"operator": "ablate", "layers": "incremental"}, "`ablate` cannot be `incremental`"),
        ({"operator": "cap"}, "`cap` needs `at`"),
        ({"operator": "cap", "at": "75%"}, r"a projection \(a number\) or {percentile: ...}"),
        ({"operator": "cap", "at": True}, r"a projection \(a number\) or {percentile: ...}"),
        ({"operator": "cap", "at": {"percentile": 101}}, "less than or equal to 100"),
        ({"operator": "cap", "at": 1.0, "layers": "incremental"}, "`cap` cannot be `incremental`"),
        ({"operator": "ablate", "layers": 0}, "must be a layer"),
        ({"operator": "ablate", "layers": []}, "must be a layer"),
        ({"operator": "ablate", "layers": [1, True]}, "must be a layer"),
        ({"operator": "ablate", "layers": "some"}, "must be a layer"),
        ({"operator": "ablate", "otherwise": "steer"}, "otherwise"),
        ({"operator": "ablate", "layer": 3}, "Extra inputs"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(config, message):
    with pytest.raises(ValidationError, match=message):
        SteerConfig.model_validate(config)


def test_two_mistakes_are_both_named():
    with pytest.raises(ValidationError, match="takes no `coefficient`; `cap` needs `at`"):
        SteerConfig.model_validate({"operator": "cap", "coefficient": -1.0})


def test_where_nothing_was_steered_otherwise_takes_over():
    config = SteerConfig(operator="ablate", otherwise="allow")
    assert Steer().respond(config, None) == Otherwise("allow")
