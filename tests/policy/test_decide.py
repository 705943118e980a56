"""The decision as a function of data: precedence, gates, modes, failures."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import CALM, loaded, rule, world

from guardrail.policy.alarms import Drift
from guardrail.policy.decide import decide, failure, recheck, tighten, unsupported
from guardrail.policy.model import Defaults
from guardrail.policy.plan import STRENGTHS, Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.types import Facts, Steering
from guardrail.vectors.values import unit

CAP = {"steer": {"operator": "cap", "at": 0.5}}
CONFIGS = {"steer": CAP, "block": "block", "rephrase": "rephrase", "escalate": "escalate"}
NOBODY = Facts()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def plan_of(folder):
    """A plan in which a score is the reading itself: no calibration, raw thresholds."""

    def make(*rules, **keys):
        rules = [{"threshold": {"raw": 1.0}} | r for r in rules]
        return loaded(folder, *rules, calibration=None, **keys).plan

    return make


def p(id="p", action="block", **keys):
    return rule(id=id, action=CONFIGS.get(action, action), **keys) | {
        "threshold": keys.get("threshold", {"raw": 1.0})
    }


def decided(plan, **scores):
    """Evaluate with a score for each trait."""
    facts = scores.pop("facts", NOBODY)
    return decide(plan, [scores.get(probe.trait, 0.0) for probe in plan.probes], facts)


def test_nothing_fires_below_the_threshold(plan_of):
    decision = decided(plan_of(p()), evil=0.999)
    assert (decision.status, decision.action, decision.policy, decision.fired) == (
        "evaluated",
        "allow",
        None,
        (),
    )
    assert not decision.stops


def test_a_score_exactly_at_the_threshold_fires(plan_of):
    assert decided(plan_of(p()), evil=1.0).action == "block"


def test_below_fires_at_and_below(plan_of):
    plan = plan_of(p(fires="below"))
    assert [decided(plan, evil=value).action for value in (0.9, 1.0, 1.1)] == ["block", "block", "allow"]


def test_every_score_is_reported_with_its_threshold(plan_of):
    decision = decided(plan_of(p(), p("q", trait="sycophancy")), evil=3.0, sycophancy=0.5)
    assert [(s.policy, s.trait, s.layer, s.score, s.threshold, s.fired) for s in decision.scores] == [
        ("p", "evil", 2, 3.0, 1.0, True),
        ("q", "sycophancy", 2, 0.5, 1.0, False),
    ]


@pytest.mark.parametrize(
    ("actions", "wins"),
    [
        (("steer", "rephrase", "escalate", "block"), "block"),
        (("steer", "escalate", "rephrase"), "escalate"),
        (("steer", "rephrase"), "rephrase"),
        (("steer",), "steer"),
    ],
)
def test_the_strongest_action_wins(plan_of, actions, wins):
    plan = plan_of(*(p(action, action) for action in actions))
    decision = decided(plan, evil=2.0)
    assert (decision.action, decision.policy) == (wins, wins)
    assert decision.fired == actions


def test_among_equals_the_first_in_the_file_decides(plan_of):
    assert decided(plan_of(p("first"), p("second")), evil=2.0).policy == "first"


def test_several_steer_combine(plan_of):
    plan = plan_of(
        p("a", "steer"), p("b", "steer", trait="sycophancy"), p("c", "steer", trait="hallucination")
    )
    decision = decided(plan, evil=2.0, hallucination=2.0)
    assert [s.policy for s in decision.steering] == ["a", "c"]
    assert not decision.stops


def test_a_stronger_action_leaves_no_steering(plan_of):
    decision = decided(plan_of(p("a", "steer"), p("b")), evil=2.0)
    assert (decision.action, decision.steering) == ("block", ())


def test_a_shadow_policy_is_scored_and_does_nothing(plan_of):
    decision = decided(plan_of(p("shadow", mode="shadow"), p("steer", "steer")), evil=2.0)
    assert (decision.action, decision.would_action, decision.policy) == ("steer", "block", "steer")
    assert decision.fired == ("shadow", "steer")
    assert [s.mode for s in decision.scores] == ["shadow", "enforce"]


def test_shadow_steering_does_not_steer(plan_of):
    plan = plan_of(p("a", "steer"), p("b", "steer", trait="sycophancy", mode="shadow"))
    assert [s.policy for s in decided(plan, evil=2.0, sycophancy=2.0).steering] == ["a"]


def test_off_is_not_even_scored(plan_of):
    decision = decided(plan_of(p("on"), p("off", mode="off")), evil=2.0)
    assert {s.policy for s in decision.scores} == {"on"}


def test_all_of_needs_all_and_any_of_one(plan_of):
    both = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    for kind, expected in (("all_of", ["allow", "allow", "block"]), ("any_of", ["block", "block", "block"])):
        plan = plan_of({"id": "p", kind: both, "action": "block", "threshold": None})
        values = [{"evil": 2.0}, {"sycophancy": 2.0}, {"evil": 2.0, "sycophancy": 2.0}]
        assert [decided(plan, **v).action for v in values] == expected
        assert decided(plan).action == "allow"


@pytest.mark.parametrize(
    ("when", "facts", "applies"),
    [
        ({"tags": ["a", "b"]}, Facts(tags=frozenset({"b"})), True),
        ({"tags": ["a"]}, Facts(tags=frozenset({"c"})), False),
        ({"tags": ["a"]}, Facts(), False),
        ({"min_turns": 2}, Facts(user_turns=2), True),
        ({"min_turns": 2}, Facts(user_turns=1), False),
        ({"last_role": "tool"}, Facts(last_role="tool"), True),
        ({"last_role": "tool"}, Facts(last_role="user"), False),
        ({"tags": ["a"], "min_turns": 2}, Facts(tags=frozenset({"a"}), user_turns=1), False),
    ],
)
def test_when_picks_the_requests(plan_of, when, facts, applies):
    decision = decided(plan_of(p(when=when)), evil=2.0, facts=facts)
    assert decision.action == ("block" if applies else "allow")
    assert decision.status == ("evaluated" if applies else "not_evaluated")


def test_nothing_to_evaluate_is_not_an_evaluation(plan_of):
    assert decided(plan_of(p(mode="off"), allow_empty=True)).status == "not_evaluated"


def test_staged_rollout_enforces_about_its_share_of_conversations(plan_of):
    plan = plan_of(p(enforce={"share": 0.3}))
    actions = [decided(plan, evil=2.0, facts=Facts(conversation=str(i))).action for i in range(2000)]
    assert 0.26 < actions.count("block") / 2000 < 0.34


def test_staged_rollout_is_stable_and_shadows_the_rest(plan_of):
    plan = plan_of(p(enforce={"share": 0.0}))
    decision = decided(plan, evil=2.0, facts=Facts(conversation="c"))
    assert (decision.action, decision.would_action) == ("allow", "block")
    assert decision == decided(plan, evil=2.0, facts=Facts(conversation="c"))


def test_a_waived_policy_is_left_out(plan_of):
    decision = decided(plan_of(p("a"), p("b", "rephrase")), evil=2.0, facts=Facts(waived=frozenset({"a"})))
    assert (decision.action, decision.policy) == ("rephrase", "b")


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("on_error", ["block", "allow", "escalate"])
def test_a_score_that_is_not_finite_is_an_error(plan_of, score, on_error):
    decision = decided(plan_of(p(on_error=on_error)), evil=score)
    assert (decision.status, decision.action) == ("error", on_error)
    assert decision.error == "p: score of evil at layer 2 is not finite"
    assert decision.fail_open == (on_error == "allow")
    assert decision.fired == ()


def test_an_error_does_not_hide_a_stronger_policy(plan_of):
    plan = plan_of(p("broken", on_error="allow", trait="sycophancy"), p("works"))
    decision = decided(plan, evil=2.0, sycophancy=math.nan)
    assert (decision.status, decision.action, decision.policy) == ("error", "block", "works")


def test_any_of_fires_where_one_condition_is_certain(plan_of):
    conditions = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    plan = plan_of(
        {"id": "p", "any_of": conditions, "threshold": None, "action": "block", "on_error": "allow"}
    )
    decision = decided(plan, evil=math.nan, sycophancy=2.0)
    assert (decision.status, decision.action, decision.fired) == ("error", "block", ("p",))
    assert [s.trait for s in decision.scores] == ["sycophancy"]


@pytest.mark.parametrize(
    ("action", "on_error", "wins"),
    [("rephrase", "block", "block"), ("block", "escalate", "block"), ("block", "allow", "block")],
)
def test_a_rule_that_fired_in_spite_of_an_error_takes_the_stronger_action(plan_of, action, on_error, wins):
    conditions = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    plan = plan_of(
        {"id": "p", "any_of": conditions, "threshold": None, "action": action, "on_error": on_error}
    )
    assert decided(plan, evil=math.nan, sycophancy=2.0).action == wins


def test_all_of_with_a_score_missing_is_an_error(plan_of):
    conditions = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    plan = plan_of({"id": "p", "all_of": conditions, "threshold": None, "action": CAP})
    decision = decided(plan, evil=math.nan, sycophancy=2.0)
    assert (decision.status, decision.action, decision.fired) == ("error", "block", ())


def test_an_error_in_a_shadow_policy_changes_nothing_but_the_status(plan_of):
    decision = decided(plan_of(p("s", mode="shadow"), allow_empty=True), evil=math.nan)
    assert (decision.status, decision.action, decision.would_action) == ("error", "allow", "block")


def test_a_decision_names_the_calibration(folder):
    found = loaded(folder, rule())
    quiet, loud = (decided(found.plan, evil=value) for value in (-9.0, 9.0))
    assert {quiet.calibration_sha256, loud.calibration_sha256} == {found.calibration.sha256}
    assert found.calibration.sha256


def scored_elsewhere(condition):
    """A plan with one condition that no probe is read for."""
    made = paper_rule("p", "block", 1.0, "enforce")
    return Plan(probes=(), rules=(replace(made, conditions=(replace(condition, reading=None),)),))


def test_a_scorers_score_is_the_one_of_its_trait():
    plan = scored_elsewhere(CompiledCondition(trait="x", layer=None, reading=0, threshold=1.0, raw=1.0))
    facts = [Facts(extra=extra) for extra in ({"x": 2.0, "y": 0.0}, {"x": 0.0, "y": 2.0}, {"y": 2.0})]
    assert [decide(plan, [], made).action for made in facts] == ["block", "allow", "block"]
    missing = decide(plan, [], facts[2])
    assert missing.status == "error"
    assert missing.error.startswith("p: score of x is")


def test_the_drift_of_a_conversation_is_the_one_of_its_policy():
    drift = Drift(statistic="cusum", reading=0)
    condition = CompiledCondition(trait="x", layer=2, reading=0, threshold=5.0, raw=5.0, drift=drift)
    plan = scored_elsewhere(condition)
    facts = [Facts(drift=found) for found in ({"p": 6.0}, {"p": 4.0, "q": 9.0}, {"q": 9.0})]
    assert [decide(plan, [], made).action for made in facts] == ["block", "allow", "block"]
    assert decide(plan, [], facts[2]).status == "error"


def test_several_errors_are_all_told(plan_of):
    decision = decided(plan_of(p("a"), p("b")), evil=math.nan)
    assert [part.split(":")[0] for part in decision.error.split("; ")] == ["a", "b"]


def test_a_quiet_prompt_is_scored_by_the_rules_about_it(plan_of):
    quiet = decided(
        plan_of(p("a"), p("b", when={"tags": ["x"]})), evil=0.0, facts=Facts(tags=frozenset({"x"}))
    )
    assert [(s.policy, s.score, s.fired) for s in quiet.scores] == [("a", 0.0, False), ("b", 0.0, False)]


def test_a_decision_names_what_it_was_made_with(plan_of):
    plan = plan_of(p(on_error="allow"))
    decision = decided(plan)
    assert (decision.policy_sha256, decision.vectors_sha256) == (plan.policy_sha256, plan.vectors_sha256)
    assert decision.fail_open
    assert any("fails open" in warning for warning in decision.warnings)


def test_a_failure_takes_the_strongest_on_error(plan_of):
    plan = plan_of(p("a", on_error="allow"), p("b", on_error="escalate"), p("s", mode="shadow"))
    decision = failure(plan, NOBODY, "it broke")
    assert (decision.status, decision.action, decision.policy, decision.error) == (
        "error",
        "escalate",
        "b",
        "it broke",
    )


def test_a_failure_would_do_what_it_does(plan_of):
    plan = plan_of(p("a", on_error="block"), p("b", on_error="escalate"), p("c", on_error="block"))
    decision = failure(plan, NOBODY, "it broke")
    assert (decision.action, decision.would_action, decision.policy) == ("block", "block", "a")


def test_a_time_out_takes_on_timeout(plan_of):
    plan = plan_of(p(on_error="block", on_timeout="allow"))
    assert failure(plan, NOBODY, "late", timeout=True).action == "allow"
    assert failure(plan, NOBODY, "broken").action == "block"


def test_on_timeout_is_on_error_unless_given(plan_of):
    assert failure(plan_of(p(on_error="escalate")), NOBODY, "late", timeout=True).action == "escalate"


def test_unsupported_input_is_never_evaluated(plan_of):
    decision = unsupported(plan_of(p(unsupported_input="escalate")), NOBODY, "an image")
    assert (decision.status, decision.action, decision.error) == ("not_evaluated", "escalate", "an image")


def test_unsupported_input_is_a_matter_of_the_enforced_rules_about_the_request(plan_of):
    plan = plan_of(
        p("rolled-out", enforce={"share": 0.0}),
        p("tagged", when={"tags": ["x"]}),
        p("shadow", mode="shadow"),
        p("reply", stage="response", unsupported_input="escalate"),
        p("open", unsupported_input="allow"),
    )
    decision = unsupported(plan, Facts(conversation="c"), "an image")
    assert (decision.action, decision.would_action, decision.policy) == ("escalate", "escalate", "reply")
    assert unsupported(plan, Facts(tags=frozenset({"x"})), "an image").policy == "tagged"


def test_an_action_without_a_strength_is_as_weak_as_allow(plan_of):
    plan = replace(plan_of(p("odd", "escalate"), p("known", "block")), strengths={"block": 1})
    assert decided(plan, evil=2.0).policy == "known"
    assert failure(plan, NOBODY, "broken").policy == "odd"
    conditions = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    either = {"id": "p", "any_of": conditions, "threshold": None, "action": "rephrase"}
    plan = replace(plan_of(either), strengths={"block": 1})
    assert decided(plan, evil=math.nan, sycophancy=2.0).action == "block"
    plan = replace(plan_of(p("odd", on_error="escalate"), p("known")), strengths={"block": 1})
    assert failure(plan, NOBODY, "broken").policy == "known"
    plan = replace(plan, rules=plan.rules[::-1])
    assert failure(plan, NOBODY, "broken").policy == "known"


def test_a_set_that_enforces_nothing_lets_failures_pass(plan_of):
    plan = plan_of(p(mode="shadow"), allow_empty=True)
    assert failure(plan, NOBODY, "broken").action == "allow"


@pytest.fixture
def rechecked(folder):
    steer = {"steer": {"operator": "cap", "at": 0.5, "recheck": True, "otherwise": "block"}}
    return loaded(folder, rule(action=steer, threshold=1.0)).plan


def test_a_recheck_that_passes_keeps_the_steering(rechecked):
    decision = decided(rechecked, evil=2.0)
    assert recheck(rechecked, decision, [0.0] * len(rechecked.probes)) == decision


@pytest.mark.parametrize("score", [1.0, 5.0, math.nan])
def test_a_recheck_that_fails_takes_otherwise(rechecked, score):
    decision = recheck(rechecked, decided(rechecked, evil=2.0), [score] * len(rechecked.probes))
    assert (decision.action, decision.steering, decision.policy) == ("block", (), "p")
    assert "p: steering did not bring the score below its threshold" in decision.warnings


def test_a_recheck_may_let_the_steered_reply_pass(folder):
    steer = {"steer": {"operator": "cap", "at": 0.5, "recheck": True, "otherwise": "allow"}}
    plan = loaded(folder, rule(action=steer, threshold=1.0)).plan
    decision = recheck(plan, decided(plan, evil=2.0), [5.0] * len(plan.probes))
    assert (decision.action, len(decision.steering)) == ("steer", 1)


def steered_and_rechecked(id, layer, otherwise, **keys):
    steer = {"operator": "cap", "at": 0.5, "layers": [layer], "recheck": True, "otherwise": otherwise}
    return rule(id=id, action={"steer": steer}, threshold=1.0, **keys)


@pytest.fixture
def twice(folder):
    """Two policies that steer and read again, at layers 3 and 4."""
    first = steered_and_rechecked("first", 2, "escalate")
    return loaded(folder, first, steered_and_rechecked("second", 3, "block", trait="sycophancy")).plan


def again(plan, **scores):
    """Readings after steering: only those of the rechecks differ from 0."""
    found = [0.0] * len(plan.probes)
    for rule_ in plan.rules:
        found[rule_.recheck.reading] = scores.get(rule_.id, 0.0)
    return found


def test_of_several_rechecks_that_fail_the_strongest_otherwise_takes_over(twice):
    decision = decided(twice, evil=2.0, sycophancy=2.0)
    assert decision.policy == "first"
    failed = recheck(twice, decision, again(twice, first=2.0, second=2.0))
    assert (failed.action, failed.policy, failed.steering) == ("block", "second", ())


def test_a_recheck_reads_its_own_probe(twice):
    decision = decided(twice, evil=2.0, sycophancy=2.0)
    assert recheck(twice, decision, again(twice, first=2.0)).policy == "first"
    assert recheck(twice, decision, again(twice, second=2.0)).policy == "second"
    assert recheck(twice, decision, [5.0, 0.0, 5.0, 0.0]) == decision


def test_a_recheck_at_a_layer_is_about_the_rules_that_read_there(twice):
    decision = decided(twice, evil=2.0, sycophancy=2.0)
    failing = again(twice, first=2.0, second=2.0)
    assert recheck(twice, decision, failing, 3).policy == "first"
    assert recheck(twice, decision, failing, 4).policy == "second"
    assert recheck(twice, decision, failing, 2) == decision


def test_steering_of_a_policy_that_is_not_in_the_plan_is_left_alone(twice):
    decision = decided(twice, evil=2.0)
    gone = replace(decision, steering=(decision.steering[0].renamed("gone"),))
    assert recheck(twice, gone, again(twice, first=2.0)) == gone


def test_an_otherwise_without_a_strength_is_as_weak_as_allow(twice):
    plan = replace(twice, strengths={"steer": 0, "block": 1})
    decision = decided(plan, evil=2.0, sycophancy=2.0)
    assert recheck(plan, decision, again(plan, first=2.0, second=2.0)).action == "block"


def test_a_plugin_can_tighten_and_not_loosen(plan_of):
    plan = plan_of(p(action="rephrase"))
    decision = decided(plan, evil=2.0)
    assert tighten(plan, decision, "block", "why").action == "block"
    assert tighten(plan, decision, "block", "why").warnings[-1] == "why"
    assert tighten(plan, decision, "allow", "why") == decision
    assert tighten(plan, decision, "allow", "why", may_loosen=True).action == "allow"


def test_a_plugin_that_asks_for_the_same_changes_nothing(plan_of):
    decision = decided(plan_of(p()), evil=2.0)
    assert tighten(plan_of(p()), decision, "block", "why") == decision


def test_a_plugin_cannot_replace_an_action_by_a_weaker_one(plan_of):
    plan = plan_of(p(action="rephrase"))
    decision = decided(plan, evil=2.0)
    assert tighten(plan, decision, "steer", "why") == decision


def test_tightening_is_what_would_be_done(plan_of):
    tightened = tighten(plan_of(p()), decided(plan_of(p())), "block", "why")
    assert (tightened.action, tightened.would_action) == ("block", "block")


def test_a_plugin_that_asks_for_steering_keeps_the_steering(plan_of):
    plan = plan_of(p(action="steer"))
    decision = decided(plan, evil=2.0)
    kept = tighten(plan, decision, "steer", "why", may_loosen=True)
    assert kept.steering == decision.steering != ()


def test_an_action_that_nobody_knows_tightens_nothing(plan_of):
    plan = plan_of(p())
    allowed, blocked = decided(plan), decided(plan, evil=2.0)
    assert tighten(plan, allowed, "unheard-of", "why") == allowed
    loosened = tighten(plan, blocked, "unheard-of", "why", may_loosen=True)
    assert (loosened.action, loosened.would_action) == ("unheard-of", "block")
    odd = replace(blocked, action="odd", would_action="odd")
    weak = replace(plan, strengths={"allow": 0, "block": 1})
    assert tighten(weak, odd, "block", "why").would_action == "block"
    assert tighten(weak, odd, "allow", "why", may_loosen=True).would_action == "allow"
    assert tighten(weak, blocked, "unheard-of", "why", may_loosen=True).would_action == "block"


def test_tightening_beyond_what_a_weaker_shadow_would_do_is_what_would_be_done(plan_of):
    decision = decided(plan_of(p(action="steer", mode="shadow"), allow_empty=True), evil=2.0)
    assert decision.would_action == "steer"
    assert tighten(plan_of(p()), decision, "block", "why").would_action == "block"


def test_tightening_keeps_what_a_stronger_shadow_would_do(plan_of):
    plan = plan_of(p("s", mode="shadow"), p("a", "steer"))
    tightened = tighten(plan, decided(plan, evil=2.0), "rephrase", "why")
    assert (tightened.action, tightened.would_action, tightened.steering) == ("rephrase", "block", ())


def paper_rule(id, action, threshold, mode):
    condition = CompiledCondition(trait="evil", layer=1, reading=0, threshold=threshold, raw=threshold)
    direction = unit(np.ones(4, dtype=np.float32))
    steering = Steering(policy=id, trait="evil", operator="ablate", layers=(1,), directions=(direction,))
    return Rule(
        id=id,
        conditions=(condition,),
        action=action,
        steering=steering if action == "steer" else None,
        mode=mode,
        settings=Defaults(mode=mode),
    )


RULES = st.tuples(
    st.sampled_from(["steer", "rephrase", "escalate", "block"]),
    st.floats(-2, 2),
    st.sampled_from(["enforce", "shadow", "off"]),
)


@CALM
@given(rules=st.lists(RULES, max_size=6), score=st.floats(-3, 3))
def test_precedence_for_any_set_of_policies(rules, score):
    plan = Plan(probes=(), rules=tuple(paper_rule(f"p{i}", *r) for i, r in enumerate(rules)))
    decision = decide(plan, [score], NOBODY)
    live = [r for r in plan.rules if r.mode != "off"]
    fired = [r for r in live if score >= r.conditions[0].threshold]
    done = [r for r in fired if r.mode == "enforce"]
    assert decision.fired == tuple(r.id for r in fired)
    assert STRENGTHS[decision.action] == max((STRENGTHS[r.action] for r in done), default=0)
    assert STRENGTHS[decision.would_action] == max((STRENGTHS[r.action] for r in fired), default=0)
    assert decision.policy == next((r.id for r in done if r.action == decision.action), None)
    steered = [r.id for r in done if r.action == "steer"] if decision.action == "steer" else []
    assert [s.policy for s in decision.steering] == steered


@CALM
@given(rules=st.lists(RULES, max_size=4), more=RULES, score=st.floats(-3, 3))
def test_one_more_policy_never_weakens_a_decision(rules, more, score):
    made = tuple(paper_rule(f"p{i}", *r) for i, r in enumerate([*rules, more]))
    whole = Plan(probes=(), rules=made)
    part = replace(whole, rules=made[:-1])
    strengths = [STRENGTHS[decide(plan, [score], NOBODY).action] for plan in (part, whole)]
    assert strengths[0] <= strengths[1]


@pytest.mark.parametrize("score", [-2.0, -1.0, 0.0, 0.999, 1.0, 2.0, math.nan, math.inf])
def test_a_prompt_on_which_nothing_fires_is_decided_as_one_by_one(plan_of, score):
    """What compares all thresholds at once leaves the same decision, scores and all."""
    plan = plan_of(p("a"), p("b", mode="shadow"), p("c", fires="below", threshold={"raw": -1.0}))
    quick = decided(plan, evil=score)
    object.__setattr__(plan, "screen", None)
    assert repr(quick) == repr(decided(plan, evil=score))
