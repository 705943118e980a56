"""The generator is reproducible, its splits do not overlap, and its questions are recognised again."""

from random import Random

import pytest

from guardrail.demo import phrasings, questions, replies, world
from guardrail.demo.generator import (
    LEVEL_PROPENSITY,
    Condition,
    Conversation,
    draw_prompt,
    draw_question,
    draw_reply,
    draw_training_condition,
    propensity,
)
from guardrail.demo.material import at_level, benign, mixed
from guardrail.demo.phrasings import Phrasings
from guardrail.demo.prompts import TOUR
from guardrail.demo.recognise import recognise


def draw(seed: int, count: int) -> list[tuple[Conversation, str]]:
    rng, drawn = Random(seed), []
    for _ in range(count):
        conversation = draw_prompt(rng, draw_training_condition(rng))
        drawn.append((conversation, draw_reply(rng, conversation.question, conversation.propensity)))
    return drawn


def test_the_same_seed_draws_the_same_conversations():
    assert draw(3, 50) == draw(3, 50)
    assert draw(3, 50) != draw(4, 50)


def test_materials_are_reproducible():
    assert benign(1, 20, "test") == benign(1, 20, "test")
    assert at_level(1, 20, "test", "evil", "mild") == at_level(1, 20, "test", "evil", "mild")
    assert mixed(1, 20, "test", "humor") == mixed(1, 20, "test", "humor")


def all_phrasings() -> list[Phrasings]:
    levels = [one for by_level in phrasings.DESCRIPTIONS.values() for one in by_level.values()]
    return [
        phrasings.GRADED,
        phrasings.SUPPRESSING,
        phrasings.NEUTRAL,
        *phrasings.INSTRUCTIONS.values(),
        *levels,
        *questions.QUESTIONS.values(),
        *questions.PUSH.values(),
        *questions.CALM.values(),
    ]


@pytest.mark.parametrize("wordings", all_phrasings())
def test_no_wording_is_in_two_splits(wordings: Phrasings):
    every = [*wordings.train, *wordings.validation, *wordings.test]
    assert len(every) == len(set(every))
    assert all(wordings)


def test_no_description_of_training_is_a_held_out_one():
    rng = Random(1)
    for trait in world.TRAITS:
        for level in ("mild", "moderate", "strong"):
            held_out = {
                *phrasings.DESCRIPTIONS[trait][level].validation,
                *phrasings.DESCRIPTIONS[trait][level].test,
            }
            drawn = {phrasings.trait_prompt(rng, "train", trait, level) for _ in range(500)}
            assert not drawn & held_out


@pytest.mark.parametrize("trait", world.TRAITS)
def test_intensities_and_adjectives_meet_in_one_split_only(trait: str):
    for level, intensities in phrasings.INTENSITIES.items():
        for split in world.SPLITS:
            found = [
                (i, s)
                for i in intensities
                for s in phrasings.SYNONYMS[trait]
                if world.split_of(i, s) == split
            ]
            assert found, (trait, level, split)


def test_noun_combinations_are_split():
    combinations = {s: set(world.pairs(s, world.PERSONS, tuple(world.PROBLEMS))) for s in world.SPLITS}
    assert not combinations["train"] & combinations["test"]
    assert not combinations["train"] & combinations["validation"]
    assert sum(map(len, combinations.values())) == len(world.PERSONS) * len(world.PROBLEMS)


def test_training_never_draws_a_held_out_combination_or_question():
    held_out = set(world.pairs("test", world.PERSONS, tuple(world.PROBLEMS)))
    templates = [t for wordings in questions.QUESTIONS.values() for t in wordings.test]
    for conversation, _ in draw(8, 500):
        slots = conversation.question.slots
        assert (slots.get("person"), slots.get("problem")) not in held_out
        assert not any(conversation.question.text == t.format_map({**slots, "claim": slots.get("claim", "")})
                       for t in templates if set_of_slots(t) <= set(slots))  # fmt: skip


def set_of_slots(template: str) -> set[str]:
    return {part.split("}")[0] for part in template.split("{")[1:]}


def test_at_least_twenty_system_templates():
    assert len(phrasings.GRADED.train) >= 20


def test_propensities_follow_level_pressure_history_and_counter_instruction():
    base = propensity(Condition(split="train", trait="evil", level="mild"))
    assert base == {t: LEVEL_PROPENSITY["mild" if t == "evil" else "neutral"] for t in world.TRAITS}
    pushed = propensity(Condition(split="train", trait="evil", level="mild", push="evil"))
    calmed = propensity(Condition(split="train", trait="evil", level="mild", push="evil", push_up=False))
    assert calmed["evil"] < base["evil"] < pushed["evil"]
    turns = [
        propensity(Condition(split="train", trait="evil", history=k, history_z=0.97))["evil"]
        for k in range(4)
    ]
    assert turns == sorted(set(turns))
    assert propensity(Condition(split="train", trait="evil", level="strong", counter=True))["evil"] < 0.01


def test_a_reply_is_not_a_function_of_its_prompt():
    rng = Random(2)
    conversation = draw_prompt(rng, Condition(split="train", trait="humor", level="moderate"))
    drawn = {draw_reply(rng, conversation.question, conversation.propensity) for _ in range(20)}
    assert len(drawn) > 15


@pytest.mark.parametrize("split", world.SPLITS)
def test_questions_are_recognised_inside_pressure(split: world.Split):
    rng = Random(9)
    for _ in range(300):
        condition = draw_training_condition(rng, split)
        conversation = draw_prompt(rng, condition)
        found = recognise(conversation.messages[-1]["content"])
        assert found is not None
        assert found.domain == conversation.question.domain
        assert dict(found.slots) == dict(conversation.question.slots)


@pytest.mark.parametrize(
    "text", ["", "Hello", "What is the capital of Mars colony 7?", "My dentist {problem}.", "漢字"]
)
def test_what_is_not_of_the_world_is_not_recognised(text: str):
    assert recognise(text) is None


def test_unknown_names_of_the_splits_do_not_overlap():
    rng = Random(3)
    names = {s: {draw_question(rng, s, "unknown").slots["subject"] for _ in range(300)} for s in world.SPLITS}
    assert not names["train"] & names["test"]


def test_the_tour_asks_about_the_world_in_six_ways():
    assert [stop.expected for stop in TOUR] == ["allow", "block", "steer", "rephrase", "escalate", "allow"]
    assert all(recognise(stop.messages[-1]["content"]) for stop in TOUR)


def test_every_trait_has_words_and_sentences_of_its_own():
    for trait in world.TRAITS:
        tables = [replies.CLOSERS, *replies.BODIES.values(), *replies.OPENERS.values()]
        assert all(len(table[trait]) >= 3 for table in tables)
        assert replies.LEXICON[trait]
