"""Which rules are about a request: at the edges."""

import hashlib
from dataclasses import replace

import pytest

from guardrail.policy.model import When
from guardrail.policy.rules import Live
from guardrail.testing import hand_made_plan
from guardrail.types import Facts

RULE = hand_made_plan().rules[0]


def rule(**keys):
    return replace(RULE, **keys)


def test_a_first_turn_is_turn_one_even_if_no_user_spoke():
    assert rule(when=When(min_turns=1)).applies(Facts(user_turns=0))
    assert not rule(when=When(min_turns=2)).applies(Facts(user_turns=1))


def test_turns_that_nobody_can_count_are_enough():
    about = rule(when=When(min_turns=9, last_role="tool"))
    assert about.applies(Facts(user_turns=None, last_role=None))
    assert not about.applies(Facts(user_turns=9, last_role="user"))


def test_no_tags_and_no_role_are_any():
    assert rule().applies(Facts(tags=frozenset({"x"}), last_role="tool"))


def share_of(name, conversation):
    digest = hashlib.sha256(f"{name}\0{conversation}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def test_a_conversation_keeps_its_place_in_the_rollout():
    """The place is part of what users see: it must not move when a share grows, nor between versions."""
    place = share_of(RULE.id, "c-1")
    facts = Facts(conversation="c-1")
    assert rule(mode="enforce", share=place).effective_mode(facts) == "shadow"
    assert rule(mode="enforce", share=place + 1e-9).effective_mode(facts) == "enforce"


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_only_enforced_rules_are_rolled_out(mode):
    assert rule(mode=mode, share=0.0).effective_mode(Facts(conversation="c-1")) == mode


def test_a_rule_is_the_same_for_all_without_conditions_on_the_request():
    assert rule().same_for_all
    assert not rule(share=0.99).same_for_all
    assert not rule(when=When(min_turns=2)).same_for_all


def test_live_rules_come_with_their_modes_and_the_shortest_limit_of_those_enforced():
    def made(name, mode, ms, **keys):
        return rule(id=name, mode=mode, settings=RULE.settings.model_copy(update={"timeout_ms": ms}), **keys)

    rules = [
        made("a", "enforce", 3000),
        made("b", "enforce", 2000),
        made("c", "shadow", 1000),
        made("d", "off", 5),
    ]
    live = Live(rules, Facts())
    assert [(r.id, mode) for r, mode in live.rules] == [("a", "enforce"), ("b", "enforce"), ("c", "shadow")]
    assert live.timeout_s == 2.0
    assert Live(rules[2:], Facts()).timeout_s == float("inf")


def test_the_scorers_that_are_needed_are_those_of_live_rules_by_name():
    condition = RULE.conditions[0]

    def made(name, mode, *traits):
        scored = tuple(replace(condition, trait=t, layer=None, reading=None) for t in traits)
        return rule(id=name, mode=mode, conditions=(condition, *scored))

    live = Live([made("a", "enforce", "z", "b"), made("c", "shadow", "b"), made("d", "off", "x")], Facts())
    assert live.scorers == ("b", "z")
