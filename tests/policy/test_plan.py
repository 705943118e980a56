from dataclasses import replace

import numpy as np
import pytest

from guardrail.policy.alarms import Drift
from guardrail.policy.model import Monitor, When
from guardrail.policy.plan import STRENGTHS, Plan
from guardrail.policy.rules import CompiledCondition
from guardrail.testing import hand_made_plan
from guardrail.types import Facts, Probe, Steering


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
    (terms,) = whole.terms(3)
    assert (terms.position, terms.normalised, terms.probes) == ("last", False, (1, 3))
    np.testing.assert_array_equal(terms.weights, axes[[1, 3]])
    np.testing.assert_allclose(terms.offsets, [0.1, 0.3])
    assert terms.weights.dtype == terms.offsets.dtype == np.float32


def test_only_layers_that_decide_are_read():
    plan = hand_made_plan(layer=2, d_model=8)
    spare = Probe(trait="spare", layer=4, weights=np.ones(8, np.float32))
    assert type(plan)(probes=(*plan.probes, spare), rules=plan.rules).layers == (2,)


def test_a_rule_is_found_by_its_policy():
    plan = hand_made_plan()
    assert plan.rule("test") is plan.rules[0]
    assert plan.rule("other") is None
    assert plan.rule(None) is None


WEIGHTS = np.ones(8, np.float32)
BASE = hand_made_plan(d_model=8).rules[0]


def on(layer, reading=0):
    return replace(condition("above"), layer=layer, reading=reading)


def steering(*layers):
    return Steering(
        policy="p", trait="evil", operator="ablate", layers=layers, directions=(WEIGHTS,) * len(layers)
    )


def rule(name="p", **keys):
    return replace(BASE, id=name, **keys)


def steers(name, *layers, **keys):
    return rule(name, action="steer", steering=steering(*layers), **keys)


def plan(*rules, probes=(), **keys):
    made = tuple(Probe(trait="evil", layer=layer, weights=WEIGHTS) for layer in probes)
    return Plan(probes=made, rules=rules, **keys)


def test_layers_are_told_ascending_and_once():
    made = plan(
        rule("a", conditions=(on(5, 1), on(2, 0))),
        steers("b", 7, 3, recheck=on(9, 2), conditions=(on(2, 0),)),
        steers("c", 3, 1, mode="shadow", recheck=on(8, 3), conditions=(on(5, 1),)),
        probes=(2, 5, 9, 8),
    )
    assert made.layers == (2, 5)
    assert made.steered_layers == (1, 3, 7)
    assert made.enforced_steering == (3, 7)
    assert made.recheck_layers == (8, 9)
    assert made.visited_layers == (1, 2, 3, 5, 7, 8, 9)
    assert made.order == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    ("steered", "below"), [((1,), True), ((4,), False), ((5,), False), ((5, 3), True), ((), False)]
)
def test_steering_below_the_last_layer_that_is_read_needs_another_pass(steered, below):
    rules = (steers("p", *steered),) if steered else (rule(),)
    assert plan(*rules, probes=(4,)).may_recompute == below


def test_replies_are_read_and_steered_by_reply_rules_alone():
    probes = (Probe(trait="evil", layer=6, weights=WEIGHTS), Probe(trait="evil", layer=2, weights=WEIGHTS))
    made = plan(steers("a", 1), reply_rules=(steers("r", 4, 6, monitor=Monitor()),), reply_probes=probes)
    assert made.reply_layers == (2, 4, 6)
    assert made.rule("r") is made.reply_rules[0]


@pytest.mark.parametrize(
    ("rules", "only"),
    [
        ((steers("a", 1),), True),
        ((steers("a", 1), rule("b", mode="shadow")), True),
        ((steers("a", 1), rule("b")), False),
        ((steers("a", 1, recheck=on(2)),), False),
        ((steers("a", 1, share=0.5),), False),
        ((steers("a", 1, when=When(tags=("x",))),), False),
        ((steers("a", 1, conditions=(replace(on(1), reading=None),)),), False),
        ((), True),
    ],
)
def test_a_plan_that_only_steers_decides_by_scores_and_the_same_for_everyone(rules, only):
    assert plan(*rules, probes=(1,)).only_steers == only


def test_alarms_are_found_by_their_policy():
    drift = Drift(statistic="cusum", reading=0)
    alarm = replace(on(1), reading=None, drift=drift)
    made = plan(rule("a", conditions=(alarm,)), rule("b", conditions=(on(1),)), probes=(1,))
    assert made.drifts == {"a": drift}
    assert made.screen is None


def settled(**keys):
    return BASE.settings.model_copy(update=keys)


@pytest.mark.parametrize(
    ("keys", "fails_open"),
    [
        ({}, False),
        ({"settings": settled(on_error="allow")}, True),
        ({"settings": settled(on_timeout="allow")}, True),
        ({"settings": settled(on_error="allow", on_timeout="block")}, True),
        ({"settings": settled(unsupported_input="allow")}, True),
        ({"otherwise": "allow"}, True),
        ({"otherwise": "allow", "mode": "shadow"}, False),
    ],
)
def test_a_plan_fails_open_if_an_enforced_rule_does(keys, fails_open):
    assert plan(rule(**keys)).fail_open == fails_open
    assert plan(rule(), reply_rules=(rule("r", **keys),)).fail_open == fails_open


def test_the_time_limit_falls_back_to_what_happens_on_errors():
    assert rule(settings=settled(on_error="escalate")).on_timeout == "escalate"
    assert rule(settings=settled(on_error="escalate", on_timeout="allow")).on_timeout == "allow"


def test_live_rules_are_worked_out_once_if_they_are_the_same_for_all():
    same = plan(rule("a"), rule("b", mode="off"))
    assert same.live(Facts(user_turns=1)) is same.live(Facts(user_turns=9))
    waived = same.live(Facts(waived=frozenset({"a"})))
    assert waived.rules == ()
    tagged = plan(rule("a"), rule("b", when=When(tags=("x",))))
    assert [r.id for r, _ in tagged.live(Facts()).rules] == ["a"]
    assert [r.id for r, _ in tagged.live(Facts(tags=frozenset({"x"}))).rules] == ["a", "b"]
