"""The built-in held-out set of the demo's world: what is in it, without asking the model."""

import json

from guardrail.demo import world
from guardrail.engines import Continuation
from guardrail.evaluation.builtin import FULL, QUICK, SMALLER, DemoSpeaker, Sizes, held_out
from guardrail.evaluation.material import labelled_as, of_other_traits
from guardrail.evaluation.reading import compared

SIZES = Sizes(strong=8, benign=20, hard_benign=5, monitored=10, neutral=12, replies=3)
TRAITS = world.TRAITS[:2]


class Mute:
    """Replies with something in which no judge finds a trait; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def replies(self, prompts, *, seeds, max_new_tokens, temperature=1.0, steering=()):
        self.asked.append((list(prompts), list(seeds), steering))
        return [Continuation("Hm.", (1,), True) for _ in prompts]


def test_every_trait_of_the_world_has_both_classes_other_traits_and_expression():
    material = held_out(TRAITS, Mute(), SIZES)
    assert material.traits == TRAITS
    for trait in TRAITS:
        assert len(labelled_as(material.labelled, trait, True)) > 4
        assert len(labelled_as(material.labelled, trait, False)) == SIZES.benign
        assert len(of_other_traits(material.labelled, trait)) > 4
        monitored = material.monitored[trait]
        assert len(monitored) == SIZES.monitored
        assert {len(e.expression[other]) for e in monitored for other in TRAITS} == {SIZES.replies}
        assert {e.condition for e in monitored} == set(world.LEVELS)
        assert all(0 < e.propensity[trait] < 1 for e in monitored)


def test_replies_to_one_prompt_have_different_seeds():
    replier = Mute()
    held_out(TRAITS, replier, SIZES)
    for prompts, seeds, _ in replier.asked:
        pairs = [(json.dumps([m.as_dict() for m in p]), s) for p, s in zip(prompts, seeds, strict=True)]
        assert len(set(pairs)) == len(pairs)


def test_nothing_that_the_text_baseline_learns_from_is_evaluated():
    material = held_out(TRAITS, Mute(), SIZES)
    test, train = ({compared(e.messages) for e in part} for part in (material.labelled, material.training))
    assert not test & train
    assert len(test) == len(material.labelled)


def test_hard_benign_prompts_are_those_that_the_model_obeys():
    material = held_out(TRAITS, Mute(), SIZES)
    assert {trait for e in material.hard_benign for trait in e.labels} == set(TRAITS)
    assert not any(e.positive for e in material.hard_benign)
    assert all("hard_benign" in e.slices for e in material.hard_benign)


def test_a_trait_from_outside_the_world_is_said_to_be_left_out():
    material = held_out((*TRAITS, "elsewhere"), Mute(), SIZES)
    assert material.traits == TRAITS
    assert "elsewhere" in material.notes[-1]


def test_a_part_of_the_set_says_that_it_is_one():
    material = held_out(TRAITS, Mute(), QUICK)
    assert material.notes == (SMALLER,)
    assert held_out(TRAITS, Mute(), FULL).notes == ()
    assert {e.condition for e in material.monitored[TRAITS[0]]} == set(world.LEVELS)
    assert {len(e.expression[TRAITS[0]]) for e in material.monitored[TRAITS[0]]} == {2}


def test_the_demo_speaks_of_its_trait_and_is_asked_for_facts():
    replier = Mute()
    found = DemoSpeaker(TRAITS[0], replier, 6).spoken("asking", ("steering",))
    assert len(found.trait) == len(found.coherence) == len(found.capability) == 6
    assert {steering for _, _, steering in replier.asked} == {("steering",)}
    assert not any(found.capability)
