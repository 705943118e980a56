"""Decisions on replies: what was observed, what was not, and which rules it is about."""

import math

import pytest
from worlds import loaded, rule, world

from guardrail.policy.decide_reply import Observed, Watch, decide_reply, reply_failure, watch
from guardrail.types import Facts, Score

NOBODY = Facts()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def plan_of(folder):
    """A plan of response policies in which a score is the projection itself."""

    def make(*rules, **keys):
        return loaded(folder, *rules, calibration=None, **keys).plan

    return make


def r(id="r", action="block", threshold=1.0, **keys):
    return rule(id=id, action=action, stage="response", threshold={"raw": threshold}, **keys)


def test_every_reply_rule_is_watched_in_its_mode(plan_of):
    plan = plan_of(
        r("a"),
        r("b", mode="off"),
        r("c", mode="shadow"),
        r("d", when={"tags": ["x"]}),
        r("e", enforce={"share": 0}),
    )
    assert watch(plan, NOBODY) == Watch(("enforce", "off", "shadow", "off", "shadow"), turn=False)
    tagged = watch(plan, Facts(tags=frozenset({"x"})), turn=True)
    assert tagged == Watch(("enforce", "off", "shadow", "enforce", "shadow"), turn=True)


@pytest.mark.parametrize(
    ("watched", "anything"),
    [
        (Watch(()), False),
        (Watch(("off", "off")), False),
        (Watch(("off", "shadow")), True),
        (Watch(("off",), turn=True), True),
    ],
)
def test_there_is_something_to_follow_if_a_rule_is_on_or_the_turn_is_wanted(watched, anything):
    assert watched.anything == anything


def test_a_rule_that_fired_decides_with_its_score_and_token(plan_of):
    decision = decide_reply(plan_of(r()), Observed(tokens=9, fired=(3,), values=(2.5,)), NOBODY)
    assert (decision.status, decision.stage, decision.action, decision.policy, decision.token) == (
        "evaluated",
        "response",
        "block",
        "r",
        3,
    )
    assert decision.fired == ("r",)
    assert decision.scores == (
        Score(policy="r", trait="evil", layer=2, score=2.5, threshold=1.0, fired=True, mode="enforce"),
    )


def test_a_rule_that_did_not_fire_lets_the_reply_pass(plan_of):
    decision = decide_reply(plan_of(r()), Observed(tokens=9, fired=(None,), values=(0.5,)), NOBODY)
    assert (decision.status, decision.action, decision.policy, decision.token) == (
        "evaluated",
        "allow",
        None,
        None,
    )
    assert [(s.score, s.fired) for s in decision.scores] == [(0.5, False)]


def test_a_value_between_two_looks_may_hold_although_the_rule_did_not_fire(plan_of):
    decision = decide_reply(plan_of(r()), Observed(tokens=9, fired=(None,), values=(1.5,)), NOBODY)
    assert (decision.action, decision.fired, decision.scores[0].fired) == ("allow", (), True)


def test_rules_that_are_off_keep_their_places_in_what_was_observed(plan_of):
    plan = plan_of(r("a", mode="off"), r("b", trait="sycophancy"), r("c", trait="hallucination"))
    observed = Observed(tokens=9, fired=(None, None, 7), values=(9.0, 0.5, 2.0))
    decision = decide_reply(plan, observed, NOBODY)
    assert (decision.policy, decision.token, decision.fired) == ("c", 7, ("c",))
    assert [(s.policy, s.trait, s.score) for s in decision.scores] == [
        ("b", "sycophancy", 0.5),
        ("c", "hallucination", 2.0),
    ]


def test_the_strongest_action_wins_and_names_its_own_token(plan_of):
    plan = plan_of(r("early", "escalate"), r("late", "block"))
    decision = decide_reply(plan, Observed(tokens=9, fired=(2, 8), values=(2.0, 2.0)), NOBODY)
    assert (decision.action, decision.policy, decision.token) == ("block", "late", 8)


def test_a_shadow_rule_fires_and_stops_nothing(plan_of):
    plan = plan_of(r(mode="shadow"), allow_empty=True)
    decision = decide_reply(plan, Observed(tokens=9, fired=(3,), values=(2.0,)), NOBODY)
    assert (decision.action, decision.would_action, decision.token) == ("allow", "block", None)
    assert (decision.fired, decision.scores[0].mode) == (("r",), "shadow")


def test_a_reply_without_tokens_was_not_evaluated(plan_of):
    decision = decide_reply(plan_of(r()), Observed(tokens=0, fired=(None,), values=(0.0,)), NOBODY)
    assert (decision.status, decision.action, decision.scores, decision.fired) == (
        "not_evaluated",
        "allow",
        (),
        (),
    )


@pytest.mark.parametrize(("kind", "action"), [("any_of", "block"), ("all_of", "allow")])
def test_a_value_that_is_not_finite_hides_no_condition_that_fired_and_is_enough(plan_of, kind, action):
    conditions = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    plan = plan_of({"id": "r", kind: conditions, "action": "block", "stage": "response", "on_error": "allow"})
    decision = decide_reply(plan, Observed(tokens=9, fired=(3,), values=(1.5, math.nan)), NOBODY)
    assert (decision.status, decision.action) == ("error", action)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_an_error_of_its_rule(plan_of, value):
    conditions = [{"trait": t, "layer": 2, "threshold": {"raw": 1.0}} for t in ("evil", "sycophancy")]
    plan = plan_of(
        {"id": "r", "any_of": conditions, "action": "block", "stage": "response", "on_error": "escalate"}
    )
    decision = decide_reply(plan, Observed(tokens=9, fired=(None,), values=(0.5, value)), NOBODY)
    assert (decision.status, decision.action, decision.policy, decision.fired) == (
        "error",
        "escalate",
        "r",
        (),
    )
    assert decision.error.startswith("r: ")
    assert "sycophancy at layer 2" in decision.error
    assert [s.trait for s in decision.scores] == ["evil"]


def test_a_reply_that_could_not_be_followed_takes_the_strongest_on_error(plan_of):
    plan = plan_of(r("a", on_error="escalate"), r("b", on_error="block"), r("c", on_error="allow"))
    decision = reply_failure(plan, NOBODY, "it broke")
    assert (decision.status, decision.stage, decision.action, decision.policy, decision.token) == (
        "error",
        "response",
        "block",
        "b",
        None,
    )
    assert decision.error == "a: it broke; b: it broke; c: it broke"
    assert decision.scores == decision.fired == ()


def test_what_cannot_be_followed_is_only_an_error_of_the_rules_about_the_request(plan_of):
    plan = plan_of(r("a", when={"tags": ["x"]}), r("b", on_error="allow"))
    decision = reply_failure(plan, NOBODY, "it broke")
    assert (decision.action, decision.error) == ("allow", "b: it broke")


def test_an_error_counts_before_the_first_token(plan_of):
    assert decide_reply(plan_of(r()), Observed(tokens=0, error="late"), NOBODY).status == "error"
