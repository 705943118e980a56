import numpy as np
import pytest

from guardrail.policy.plan import STRENGTHS, CompiledCondition
from guardrail.testing import hand_made_plan
from guardrail.types import Probe


def condition(fires):
    return CompiledCondition(trait="evil", layer=1, reading=0, threshold=1.0, raw=1.0, fires=fires)


@pytest.mark.parametrize(
    ("fires", "expected"), [("above", [False, True, True]), ("below", [True, True, False])]
)
def test_a_condition_holds_at_its_threshold(fires, expected):
    assert [condition(fires).holds(score) for score in (0.5, 1.0, 1.5)] == expected


def test_the_order_of_actions():
    assert sorted(STRENGTHS, key=STRENGTHS.__getitem__) == ["allow", "steer", "rephrase", "escalate", "block"]


def test_one_matrix_product_for_each_layer():
    plan = hand_made_plan(d_model=8)
    axes = np.eye(8, dtype=np.float32)
    probes = [Probe(trait=str(i), layer=2 + i % 2, weights=axes[i], offset=i / 10) for i in range(4)]
    whole = type(plan)(probes=tuple(probes), rules=plan.rules)
    indices, weights, offsets = whole.matrix(3)
    assert indices == (1, 3)
    np.testing.assert_array_equal(weights, axes[[1, 3]])
    np.testing.assert_allclose(offsets, [0.1, 0.3])
    assert weights.dtype == offsets.dtype == np.float32


def test_only_layers_that_decide_are_read():
    plan = hand_made_plan(layer=2, d_model=8)
    spare = Probe(trait="spare", layer=4, weights=np.ones(8, np.float32))
    assert type(plan)(probes=(*plan.probes, spare), rules=plan.rules).layers == (2,)


def test_a_rule_is_found_by_its_policy():
    plan = hand_made_plan()
    assert plan.rule("test") is plan.rules[0]
    assert plan.rule("other") is None
    assert plan.rule(None) is None
