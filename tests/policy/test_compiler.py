"""From policies, vectors and calibration to a plan: numbers, and what cannot be compiled."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import FINGERPRINT, VECTORS, calibration, policies, rule, world

from guardrail.plugins.manager import Plugins
from guardrail.policy.compiler import Compiler
from guardrail.policy.conditions import CompileInputs
from guardrail.policy.model import PolicySet
from guardrail.types import Probe

TABLE = calibration()
AXIS = np.eye(32, dtype=np.float32)[7]


def compiled(*rules, table=TABLE, probes=None, scorers=(), set_keys=None, vectors=VECTORS):
    """(plan, problems as (key, message))."""
    data = {"version": 1, "policies": list(rules)} | (set_keys or {})
    inputs = CompileInputs(
        fingerprint=FINGERPRINT,
        vectors=vectors,
        calibration=table,
        actions=Plugins().action_infos(),
        probes=probes or {},
        scorers=frozenset(scorers),
    )
    compiler = Compiler(PolicySet.model_validate(data), inputs)
    plan = compiler.compile()
    return plan, [(problem.key, problem.message) for problem in compiler.problems]


def plan_of(*rules, **keys):
    plan, problems = compiled(*rules, **keys)
    assert problems == []
    return plan


def score(plan, hidden, index=0):
    """What the engine computes: <h, weights> + offset."""
    return float(hidden @ plan.probes[index].weights + plan.probes[index].offset)


def hidden(seed=0):
    return np.random.default_rng(seed).normal(size=32).astype(np.float32)


def test_a_reading_is_the_standardised_projection():
    plan = plan_of(rule())
    known = TABLE.probes["evil"][2]
    projection = float(hidden() @ VECTORS["evil"].probe[2])
    assert score(plan, hidden()) == pytest.approx((projection - known.mean) / known.sd, abs=1e-5)


def test_without_a_calibration_a_reading_is_the_projection():
    plan = plan_of(rule(threshold={"raw": 1.5}), table=None)
    assert score(plan, hidden()) == pytest.approx(float(hidden()[0]))
    assert (plan.rules[0].conditions[0].threshold, plan.rules[0].conditions[0].raw) == (1.5, 1.5)


@pytest.mark.parametrize(
    ("threshold", "raw"),
    [
        (2.0, TABLE.probes["evil"][2].mean + 2.0 * TABLE.probes["evil"][2].sd),
        ({"raw": 4.0}, 4.0),
        ({"fpr": 0.01}, TABLE.probes["evil"][2].conformal(0.01)),
        ({"percentile": 99}, TABLE.probes["evil"][2].percentile(99)),
    ],
)
def test_every_kind_of_threshold_in_both_units(threshold, raw):
    condition = plan_of(rule(threshold=threshold)).rules[0].conditions[0]
    assert condition.raw == pytest.approx(raw)
    assert condition.threshold == pytest.approx(TABLE.probes["evil"][2].standardise(raw))


@pytest.mark.parametrize(("kind", "value"), [("fpr", 0.01), ("percentile", 99)])
def test_firing_below_takes_the_other_tail(kind, value):
    known = TABLE.probes["evil"][2]
    expected = known.conformal(value, "lower") if kind == "fpr" else known.percentile(100 - value)
    condition = plan_of(rule(threshold={kind: value}, fires="below")).rules[0].conditions[0]
    assert condition.raw == pytest.approx(expected)
    assert condition.raw < known.mean


def test_an_fpr_keeps_what_it_was_calibrated_for():
    condition = plan_of(rule(threshold={"fpr": 0.01})).rules[0].conditions[0]
    assert (condition.fpr, condition.n) == (0.01, 999)


def test_auto_is_the_layer_that_the_evaluation_chose():
    assert plan_of(rule(layer="auto")).layers == (VECTORS["evil"].layer,)


def test_auto_without_a_choice_is_a_problem():
    vectors = replace(VECTORS, vectors={**VECTORS, "evil": replace(VECTORS["evil"], layer=None)})
    _, problems = compiled(rule(layer="auto", threshold={"raw": 1}), vectors=vectors, table=None)
    assert problems == [
        ("policies[0].layer", "`auto`: no evaluation has chosen a layer for this trait; give a layer")
    ]


def test_unusable_rows_are_not_read():
    vectors = replace(VECTORS, vectors={**VECTORS, "evil": replace(VECTORS["evil"], unusable=(4,))})
    _, problems = compiled(rule(layer=4, threshold={"raw": 1}), vectors=vectors, table=None)
    assert problems == [("policies[0].layer", "layer 4 cannot be read; layers are 1 to 4, except [4]")]


def test_a_probe_is_read_once_for_all_policies():
    plan = plan_of(
        rule(), rule(id="q", threshold=3.0), rule(id="r", layer=3), rule(id="s", trait="sycophancy")
    )
    assert [(probe.trait, probe.layer) for probe in plan.probes] == [
        ("evil", 2),
        ("evil", 3),
        ("sycophancy", 2),
    ]
    assert [r.conditions[0].reading for r in plan.rules] == [0, 0, 1, 2]


def test_a_plugins_probe_reads_its_own_layer_and_is_not_scaled():
    probes = {"custom": Probe(trait="custom", layer=3, weights=AXIS, offset=0.5)}
    plan = plan_of(rule(trait="custom", layer="auto", threshold={"raw": 1.0}), probes=probes)
    assert plan.layers == (3,)
    assert score(plan, hidden()) == pytest.approx(float(hidden()[7]) + 0.5)


def test_a_scorer_has_no_layer_and_a_plain_threshold():
    plan = plan_of(rule(trait="classifier", threshold=0.8), scorers=["classifier"])
    condition = plan.rules[0].conditions[0]
    assert (condition.layer, condition.reading, condition.threshold) == (None, None, 0.8)
    _, problems = compiled(rule(trait="classifier", threshold={"fpr": 0.1}), scorers=["classifier"])
    assert problems == [("policies[0].threshold", "must be a number, because a scorer has no calibration")]


def test_nothing_to_steer_is_a_problem():
    steer = {"steer": {"operator": "ablate"}}
    _, problems = compiled(rule(trait="classifier", threshold=0.8, action=steer), scorers=["classifier"])
    assert problems == [
        ("policies[0].action", "nothing to steer: no condition uses a trait that has a vector")
    ]


def test_steering_is_resolved():
    plan = plan_of(rule(action={"steer": {"operator": "cap", "at": {"percentile": 75}, "layers": [3, 4]}}))
    steering = plan.rules[0].steering
    assert (steering.policy, steering.trait, steering.layers) == ("p", "evil", (3, 4))
    assert plan.steered_layers == (3, 4)


def test_a_recheck_reads_above_the_steered_layers():
    steer = {"steer": {"operator": "ablate", "layers": [2], "recheck": True}}
    plan = plan_of(rule(action=steer))
    assert plan.recheck_layers == (3,)
    assert plan.layers == (2,)


def test_a_recheck_against_a_raw_threshold_is_a_problem():
    steer = {"steer": {"operator": "ablate", "recheck": True}}
    _, problems = compiled(rule(threshold={"raw": 1.0}, action=steer))
    assert [key for key, _ in problems] == ["policies[0].action.steer.recheck"]


def test_a_problem_of_steering_is_reported_once():
    steer = {"steer": {"operator": "ablate", "layers": [9], "recheck": True}}
    _, problems = compiled(rule(action=steer))
    assert len(problems) == 1


def test_a_recheck_is_about_the_trait_that_is_steered():
    probes = {"custom": Probe(trait="custom", layer=1, weights=AXIS)}
    conditions = [
        {"trait": "custom", "threshold": {"raw": 1.0}},
        {"trait": "evil", "layer": 2, "threshold": 1.0},
    ]
    steer = {"steer": {"operator": "ablate", "recheck": True}}
    plan = plan_of({"id": "p", "all_of": conditions, "action": steer}, probes=probes)
    assert (plan.rules[0].recheck.trait, plan.rules[0].recheck.layer) == ("evil", 3)


def test_failing_open_warns():
    plan = plan_of(rule(on_timeout="allow"))
    assert plan.warnings == ("p: fails open: `on_timeout: allow`",)
    assert plan.fail_open


def test_a_shadow_policy_does_not_fail_open():
    assert not plan_of(rule(on_error="allow", mode="shadow"), set_keys={"allow_empty": True}).fail_open


def test_the_same_policies_make_the_same_plan(tmp_path):
    data = PolicySet.model_validate(policies(world(tmp_path), rule()))
    assert data.model_dump_json() == PolicySet.model_validate(policies(tmp_path, rule())).model_dump_json()
    assert (
        plan_of(rule()).policy_sha256 == plan_of(rule()).policy_sha256 != plan_of(rule(id="q")).policy_sha256
    )


def test_a_condition_that_cannot_compile_hides_no_problem_of_its_action():
    wrong = rule(stage="response", threshold={"fpr": 0.1}, action="rephrase")
    _, problems = compiled(wrong, table=None)
    assert [key for key, _ in problems] == ["policies[0].threshold", "policies[0].action.rephrase"]
