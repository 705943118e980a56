"""From policies, vectors and calibration to a plan: numbers, and what cannot be compiled."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from worlds import FINGERPRINT, VECTORS, calibration, policies, rule, world

from guardrail.calibration.benign import BenignReplies
from guardrail.errors import Problem
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import NoConfig
from guardrail.policy.compiler import Compiler, config_problems
from guardrail.policy.conditions import CompileInputs
from guardrail.policy.model import Defaults, Monitor, PolicySet, When
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.types import Probe
from guardrail.vectors.provenance import Stability, TraitSource
from guardrail.vectors.values import TraitVectors

TABLE = calibration()
ANY = {"allow_empty": True}
RAW = {"threshold": {"raw": 1.0}}
AXIS = np.eye(32, dtype=np.float32)[7]


def compiled(
    *rules, table=TABLE, probes=None, scorers=(), set_keys=None, vectors=VECTORS, plugins=(), mark=FINGERPRINT
):
    """(plan, problems as (key, message))."""
    data = {"version": 1, "policies": list(rules)} | (set_keys or {})
    inputs = CompileInputs(
        fingerprint=mark,
        vectors=vectors,
        calibration=table,
        actions=Plugins(plugins).action_infos(),
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
    ((key, message),) = compiled(rule(threshold={"raw": 1.0}, action=steer))[1]
    assert key == "policies[0].action.steer.recheck"
    assert message == "recheck reads another layer, so it cannot use a raw threshold"


def test_a_policy_about_conversations_cannot_recheck():
    steer = {"steer": {"operator": "ablate", "recheck": True}}
    asked = {"id": "c", "trait": "evil", "layer": 2, "action": steer}
    asked["conversation"] = {"reference": {"mean": 0.0, "sd": 1.0}}
    _, problems = compiled(asked)
    text = "does not apply to `conversation`, which reads no layer"
    assert problems == [("policies[0].action.steer.recheck", text)]


def test_a_recheck_needs_a_calibration_of_its_own_layer():
    steer = {"steer": {"operator": "ablate", "recheck": True}}
    table = replace(TABLE, probes={"evil": {2: TABLE.probes["evil"][2]}})
    ((key, _),) = compiled(rule(action=steer), table=table)[1]
    assert key.startswith("policies[0].action.steer")


def test_a_problem_of_steering_is_reported_once():
    steer = {"steer": {"operator": "ablate", "layers": [9], "recheck": True}}
    _, problems = compiled(rule(action=steer))
    assert len(problems) == 1


def test_one_kind_of_problem_hides_no_other_of_its_policy():
    steer = {"steer": {"operator": "ablate", "layers": [9]}}
    both = {"all_of": [{"trait": "evil", "threshold": {"fpr": 1e-5}}, {"trait": "wit", "threshold": 1.0}]}
    _, problems = compiled({"id": "p", **both, "monitor": {}, "action": steer})
    assert [key for key, _ in problems] == [
        "policies[0].all_of[0].threshold",
        "policies[0].all_of[1].trait",
        "policies[0].monitor",
        "policies[0].action.steer",
    ]


def test_an_unknown_trait_is_not_also_nothing_to_steer():
    _, problems = compiled(rule(trait="wit", action={"steer": {"operator": "ablate"}}))
    assert [key for key, _ in problems] == ["policies[0].trait"]


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


STEADY, SHAKY = (0.9,) * 5, (0.9, 0.9, 0.31, 0.69, 0.9)


def vectors_with(split_half):
    kept = Stability(questions=20, split_half=split_half, bootstrap_low=STEADY, relative_norm=STEADY)
    source = TraitSource(definition_sha256="", positive=30, negative=30, stability=kept)
    provenance = replace(VECTORS.provenance, traits={"evil": source})
    return TraitVectors(VECTORS.vectors, provenance)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"layer": 2}, "at layer 2 the directions of two halves of its 20 questions have a cosine of 0.31"),
        ({"layer": 3, "mode": "shadow"}, "at layer 3 "),
        ({"layer": 1, "action": {"steer": {"operator": "ablate", "layers": [1, 2, 3]}}}, "at layer 2 "),
        ({"layer": 2, "mode": "off"}, None),
        ({"layer": 1}, None),
    ],
)
def test_a_vector_that_depends_on_its_questions_warns_where_it_is_used(keys, said):
    plan, problems = compiled(rule(**RAW, **keys), vectors=vectors_with(SHAKY), table=None, set_keys=ANY)
    assert problems == []
    found = [one for one in plan.warnings if "unsteady" in one]
    assert len(found) == (said is not None)
    assert all(f"the vector of `evil` is unsteady: {said}" in one for one in found)


def test_a_steady_vector_is_not_warned_about():
    plan, _ = compiled(rule(**RAW, layer=2), vectors=vectors_with(STEADY), table=None, set_keys=ANY)
    assert not [one for one in plan.warnings if "unsteady" in one]


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


def test_every_key_of_a_policy_reaches_its_rule():
    plan = plan_of(
        rule(
            id="full",
            threshold={"raw": 4.0},
            fires="below",
            message="No.",
            mode="shadow",
            when={"tags": ["a"], "min_turns": 2, "last_role": "tool"},
            enforce={"share": 0.25},
            on_error="escalate",
            on_timeout="allow",
            timeout_ms=7,
            on_truncate="score_tail",
            unsupported_input="allow",
        ),
        set_keys={"allow_empty": True},
    )
    known = TABLE.probes["evil"][2]
    assert plan.rules == (
        Rule(
            id="full",
            conditions=(
                CompiledCondition(
                    trait="evil",
                    layer=2,
                    reading=0,
                    threshold=known.standardise(4.0),
                    raw=4.0,
                    fires="below",
                    n=known.n,
                ),
            ),
            require_all=True,
            action="block",
            config=plan.rules[0].config,
            steering=None,
            recheck=None,
            otherwise="block",
            mode="shadow",
            when=When(tags=("a",), min_turns=2, last_role="tool"),
            share=0.25,
            message="No.",
            settings=Defaults(
                mode="shadow",
                on_error="escalate",
                on_timeout="allow",
                timeout_ms=7,
                on_truncate="score_tail",
                unsupported_input="allow",
            ),
        ),
    )


def test_a_plan_says_what_it_was_made_from_and_how_strong_actions_are():
    plan = plan_of(rule())
    text = PolicySet.model_validate({"version": 1, "policies": [rule()]}).model_dump_json()
    assert plan.policy_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (plan.vectors_sha256, plan.calibration_sha256) == (VECTORS.sha256, TABLE.sha256)
    assert plan_of(rule(threshold={"raw": 1.0}), table=None).calibration_sha256 == ""
    assert plan.strengths == {"allow": 0, "steer": 10, "rephrase": 20, "escalate": 30, "block": 40}


def test_any_of_needs_one_and_a_response_policy_has_a_monitor():
    conditions = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    plan = plan_of(
        {"id": "any", "any_of": conditions, "action": "block"},
        {"id": "all", "all_of": conditions, "action": "block"},
        rule(id="r", stage="response", threshold={"raw": 1.0}),
        rule(id="s", stage="response", threshold={"raw": 1.0}, monitor={"window": 3}),
    )
    assert [r.require_all for r in plan.rules] == [False, True]
    assert [r.monitor for r in plan.rules] == [None, None]
    assert [r.monitor for r in plan.reply_rules] == [Monitor(), Monitor(window=3)]


@pytest.mark.parametrize(("kind", "j"), [("all_of", 1), ("any_of", 1)])
def test_a_problem_of_one_condition_is_at_its_place(kind, j):
    conditions = [{"trait": t, "layer": 2, "threshold": 1.0} for t in ("evil", "vice")]
    _, problems = compiled({"id": "p", kind: conditions, "action": "block"})
    assert [key for key, _ in problems] == [f"policies[0].{kind}[{j}].trait"]


def test_offsets_and_double_precision_of_vectors_and_plugins_are_read():
    vector = replace(VECTORS["evil"], offset=np.arange(5, dtype=np.float32))
    vectors = replace(VECTORS, vectors={**VECTORS, "evil": vector})
    plan = plan_of(rule(threshold={"raw": 1.0}), vectors=vectors, table=None)
    assert score(plan, hidden()) == pytest.approx(float(hidden() @ vector.probe[2]) + 2.0, abs=1e-5)
    probes = {"custom": Probe(trait="custom", layer=3, weights=AXIS.astype(np.float64), offset=0.5)}
    plan = plan_of(rule(trait="custom", layer="auto", threshold={"raw": 1.0}), probes=probes)
    assert plan.probes[0].weights.dtype == np.float32


def test_a_scorers_condition_fires_on_the_side_that_is_asked_for():
    plan = plan_of(rule(trait="classifier", threshold={"raw": 0.8}, fires="below"), scorers=["classifier"])
    assert plan.rules[0].conditions == (
        CompiledCondition(
            trait="classifier", layer=None, reading=None, threshold=0.8, raw=0.8, fires="below"
        ),
    )


def test_a_trait_that_was_not_calibrated_at_its_layer_needs_a_raw_threshold():
    table = replace(TABLE, probes={"evil": {3: TABLE.probes["evil"][3]}})
    for trait, layer in (("evil", 2), ("sycophancy", 3)):
        plan = plan_of(rule(trait=trait, layer=layer, threshold={"raw": 1.5}), table=table)
        condition = plan.rules[0].conditions[0]
        assert (condition.threshold, condition.n) == (1.5, None)
        _, problems = compiled(rule(trait=trait, layer=layer), table=table)
        assert [key for key, _ in problems] == ["policies[0].threshold"]


def test_a_policy_that_fires_below_steers_with_a_floor():
    cap = {"steer": {"operator": "cap", "at": 0.5}}
    assert plan_of(rule(action=cap, fires="below")).rules[0].steering.floor
    assert not plan_of(rule(action=cap)).rules[0].steering.floor


def test_the_first_condition_about_a_trait_with_a_vector_is_steered():
    probes = {"custom": Probe(trait="custom", layer=1, weights=AXIS)}
    conditions = [
        {"trait": "custom", "threshold": {"raw": 1.0}},
        {"trait": "sycophancy", "layer": 3, "threshold": 1.0},
        {"trait": "evil", "layer": 2, "threshold": 1.0},
    ]
    plan = plan_of(
        {"id": "p", "any_of": conditions, "action": {"steer": {"operator": "ablate"}}}, probes=probes
    )
    assert (plan.rules[0].steering.trait, plan.rules[0].steering.layers) == ("sycophancy", (3,))


def test_what_steering_turns_into_if_it_fails_is_the_actions():
    steer = {"steer": {"operator": "ablate", "recheck": True, "otherwise": "escalate"}}
    assert plan_of(rule(action=steer)).rules[0].otherwise == "escalate"
    assert plan_of(rule(action={"rephrase": {"otherwise": "allow"}})).rules[0].otherwise == "allow"


def test_every_way_to_fail_open_is_named():
    steer = {"steer": {"operator": "ablate", "recheck": True, "otherwise": "allow"}}
    open_ = {"on_error": "allow", "on_timeout": "allow", "unsupported_input": "allow"}
    (warning,) = plan_of(rule(action=steer, **open_)).warnings
    assert warning.startswith("p: ")
    named = ["`on_error: allow`", "`on_timeout: allow`", "`unsupported_input: allow`", "`otherwise: allow`"]
    assert [name for name in named if name in warning] == named


def test_cutting_a_prompt_is_worth_a_warning_if_it_is_enforced():
    (warning,) = plan_of(rule(on_truncate="score_tail")).warnings
    assert warning.startswith("p: ")
    shadow = rule(on_truncate="score_tail", mode="shadow")
    assert plan_of(shadow, set_keys={"allow_empty": True}).warnings == ()


def test_policies_about_replies_warn_if_their_own_calibration_is_missing():
    replies = BenignReplies.of([np.arange(3.0), np.arange(4.0) + 0.5], [("mean", 16)])
    table = replace(TABLE, replies={"evil": {2: replies}})
    reference = {"reference": {"mean": 0.0, "sd": 1.0}}
    made = [
        rule(id="r", stage="response", threshold={"raw": 100.0}),
        {"id": "c", "trait": "evil", "layer": 2, "action": "block", "conversation": reference},
        rule(id="p"),
    ]
    assert [w.split(":")[0] for w in plan_of(*made).warnings] == ["r", "c"]
    assert not [w for w in plan_of(*made, table=table).warnings if "without a calibration" in w]
    elsewhere = [rule(id="r", stage="response", threshold={"raw": 1.0}, layer=3)]
    assert [w.split(":")[0] for w in plan_of(*elsewhere, table=table).warnings] == ["r"]
    both = [{"trait": "evil", "layer": layer, "threshold": {"raw": 100.0}} for layer in (2, 3)]
    part = {"id": "q", "any_of": both, "stage": "response", "action": "block"}
    assert [w.split(":")[0] for w in plan_of(part, table=table).warnings if "without" in w] == ["q"]
    shadow = [made[0] | {"mode": "shadow"}, rule(id="p")]
    assert plan_of(*shadow).warnings == ()
    (warning,) = plan_of(elsewhere[0], table=None).warnings
    assert warning.startswith("r: ")


class Odd:
    """An action whose verdict is whatever the test says."""

    name = "odd"
    strength = 5
    Config = NoConfig

    def __init__(self, verdict):
        self.verdict = verdict

    def compile(self, config):
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def respond(self, config, context): ...

    @hookimpl
    def guardrail_actions(self):
        return [self]


@pytest.mark.parametrize("verdict", [None, "go", RuntimeError("sorry")])
def test_an_action_that_does_not_compile_is_a_problem_at_its_name(verdict):
    plan, problems = compiled(rule(action="odd"), plugins=[Odd(verdict)])
    assert [key for key, _ in problems] == ["policies[0].action.odd"]
    assert repr(verdict) in problems[0][1]
    assert plan.rules == ()


def test_a_plugins_action_has_the_strength_it_says():
    plan = plan_of(rule(action="odd"), plugins=[Odd("stop")])
    assert (plan.strengths["odd"], plan.rules[0].action, plan.rules[0].otherwise) == (5, "odd", "block")


def test_policies_that_compile_are_kept_beside_those_that_do_not():
    plan, problems = compiled(rule(id="a", trait="vice"), rule(id="b"), rule(id="b"))
    assert [key for key, _ in problems] == ["policies[2].id", "policies[0].trait"]
    assert [r.id for r in plan.rules] == ["b", "b"]


def test_another_model_is_a_problem_of_the_vectors_and_of_the_calibration_or_a_warning():
    other = replace(FINGERPRINT, weights="other", tokenizer="other")
    _, problems = compiled(rule(), mark=other)
    assert [key for key, _ in problems] == ["vectors", "calibration"]
    plan, problems = compiled(rule(), mark=other, set_keys={"allow_model_mismatch": True})
    assert problems == []
    assert [warning.split()[1] for warning in plan.warnings] == ["vectors", "calibration"]
    assert all("weights" in warning and "tokenizer" in warning for warning in plan.warnings)


@pytest.mark.parametrize(("keys", "count"), [({}, 1), ({"allow_empty": True}, 0)])
def test_a_set_that_enforces_nothing_has_to_say_so(keys, count):
    _, problems = compiled(rule(mode="shadow"), set_keys=keys)
    assert [key for key, _ in problems] == ["policies"] * count
    default = {"defaults": {"mode": "shadow"}, **keys}
    assert len(compiled(rule(), set_keys=default)[1]) == count
    assert compiled(rule(mode="enforce"), set_keys=default)[1] == []


def test_an_action_may_refuse_its_configuration_in_its_own_words():
    path = ("policies", 0, "action", "odd")
    info = Plugins([Odd("stop")]).action_infos()["odd"]
    assert config_problems(ValueError("too odd"), {}, path, info) == [Problem("too odd", path)]
