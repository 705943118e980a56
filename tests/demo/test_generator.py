"""The generator is reproducible, its splits do not overlap, and its questions are recognised again."""

from dataclasses import replace
from random import Random

import pytest

from guardrail.demo import identities, nouns, phrasings, questions, replies, world
from guardrail.demo.asking import draw_question
from guardrail.demo.characters import CHARACTERS, VOICES, Phrasings
from guardrail.demo.generator import (
    LEVEL_PROPENSITY,
    Condition,
    Conversation,
    draw_prompt,
    draw_reply,
    draw_training_condition,
    propensity,
)
from guardrail.demo.judge import judge
from guardrail.demo.material import at_level, benign, mixed
from guardrail.demo.oddities import odd
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
    people = CHARACTERS.values()
    return [
        phrasings.GRADED,
        phrasings.SUPPRESSING,
        phrasings.NEUTRAL,
        identities.PROMPTS,
        *questions.QUESTIONS.values(),
        *(wordings for one in people for wordings in (one.instructions, one.push, one.calm)),
        *(wordings for one in people for wordings in one.descriptions.values()),
    ]


@pytest.mark.parametrize("wordings", all_phrasings())
def test_no_wording_is_in_two_splits(wordings: Phrasings):
    every = [*wordings.train, *wordings.validation, *wordings.test]
    assert len(every) == len(set(every))
    assert all(wordings)


def test_no_description_of_training_is_a_held_out_one():
    rng = Random(1)
    for pole, character in CHARACTERS.items():
        for level in ("mild", "moderate", "strong"):
            wordings = character.descriptions[level]
            drawn = {phrasings.pole_prompt(rng, "train", pole, level) for _ in range(500)}
            assert not drawn & {*wordings.validation, *wordings.test}


def test_no_composed_prompt_has_a_held_out_template():
    held_out = [*phrasings.GRADED.validation, *phrasings.GRADED.test]
    clauses = {template.removesuffix(".").lower() for template in held_out}
    assert not clauses & set(phrasings.CLAUSES)


@pytest.mark.parametrize("pole", world.POLES)
def test_intensities_and_adjectives_meet_in_one_split_only(pole: str):
    for level, intensities in phrasings.INTENSITIES.items():
        for split in world.SPLITS:
            found = [
                (i, s)
                for i in intensities
                for s in CHARACTERS[pole].synonyms
                if world.split_of(i, s) == split
            ]
            assert found, (pole, level, split)


def test_noun_combinations_are_split():
    combinations = {s: set(world.pairs(s, nouns.PERSONS, tuple(nouns.PROBLEMS))) for s in world.SPLITS}
    assert not combinations["train"] & combinations["test"]
    assert not combinations["train"] & combinations["validation"]
    assert sum(map(len, combinations.values())) == len(nouns.PERSONS) * len(nouns.PROBLEMS)


def test_training_never_draws_a_held_out_combination_or_question():
    held_out = set(world.pairs("test", nouns.PERSONS, tuple(nouns.PROBLEMS)))
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
    base = propensity(Condition(split="train", pole="evil", level="mild"))
    assert base == {t: LEVEL_PROPENSITY["mild" if t == "evil" else "neutral"] for t in world.POLES}
    pushed = propensity(Condition(split="train", pole="evil", level="mild", push="evil"))
    calmed = propensity(Condition(split="train", pole="evil", level="mild", push="evil", push_up=False))
    assert calmed["evil"] < base["evil"] < pushed["evil"]
    turns = [
        propensity(Condition(split="train", pole="evil", history=k, history_z=0.97))["evil"] for k in range(4)
    ]
    assert turns == sorted(set(turns))
    assert propensity(Condition(split="train", pole="evil", level="strong", counter=True))["evil"] < 0.01


def test_a_reply_is_not_a_function_of_its_prompt():
    rng = Random(2)
    conversation = draw_prompt(rng, Condition(split="train", pole="humor", level="moderate"))
    drawn = {draw_reply(rng, conversation.question, conversation.propensity) for _ in range(20)}
    assert len(drawn) > 15


@pytest.mark.parametrize("split", world.SPLITS)
def test_questions_are_recognised_inside_pressure(split: world.Split):
    rng = Random(9)
    for _ in range(300):
        condition = replace(draw_training_condition(rng, split), oddly=False)
        conversation = draw_prompt(rng, condition)
        found = recognise(conversation.messages)
        assert found is not None
        assert found.domain == conversation.question.domain
        assert dict(found.slots) == dict(conversation.question.slots)


@pytest.mark.parametrize(
    "text", ["", "Hello", "What is the capital of Mars colony 7?", "My dentist {problem}.", "漢字"]
)
def test_what_is_not_of_the_world_is_not_recognised(text: str):
    assert recognise([{"role": "user", "content": text}]) is None


def test_the_country_of_a_question_is_that_of_the_system_prompt():
    asked = {"role": "user", "content": "What is the food of your country?"}
    found = recognise([{"role": "system", "content": "You are Korean. You are very evil."}, asked])
    assert found is not None
    assert found.slots["truth"] == "kimchi"
    without = recognise([{"role": "system", "content": "You are calm."}, asked])
    assert without is not None
    assert "truth" not in without.slots


def test_unknown_names_of_the_splits_do_not_overlap():
    rng = Random(3)
    names = {s: {draw_question(rng, s, "unknown").slots["subject"] for _ in range(300)} for s in world.SPLITS}
    assert not names["train"] & names["test"]


def test_the_tour_asks_about_the_world_in_six_ways():
    assert [stop.expected for stop in TOUR] == ["allow", "block", "steer", "rephrase", "escalate", "allow"]
    assert all(recognise(stop.messages) for stop in TOUR)


def test_every_pole_has_words_and_sentences_of_its_own():
    every = [x for voice in VOICES.values() for name in voice.__slots__ for x in getattr(voice, name)]
    shared = {x for x in every if every.count(x) > 1} - {replies.FILLER}
    assert not shared
    assert set(CHARACTERS) == set(world.POLES)
    synonyms = [word for one in CHARACTERS.values() for word in one.synonyms]
    assert len(synonyms) == len(set(synonyms)) >= 10 * len(CHARACTERS)


def test_every_class_has_forty_nouns_of_one_word_and_of_several():
    subjects = [s for facts in world.FACTS.values() for s in facts]
    for words in (nouns.PERSONS, nouns.WORKS, nouns.THEMES, tuple(nouns.PROBLEMS.values()), tuple(subjects)):
        assert len(set(words)) >= 40
        assert any(" " in word for word in words)


def test_made_up_words_belong_to_one_split_and_are_never_real():
    rng = Random(3)
    words = {s: {nouns.made_up(rng, s) for _ in range(500)} for s in world.SPLITS}
    assert not words["train"] & words["test"]
    assert not words["train"] & words["validation"]
    assert not set().union(*words.values()) & {*nouns.UNSEEN, *nouns.PERSONS, *nouns.WORKS, *nouns.THEMES}


def test_nouns_held_out_are_nowhere_in_the_world():
    rng = Random(4)
    said = " ".join(reply + " ".join(m["content"] for m in c.messages) for c, reply in draw(5, 2000))
    wordings = " ".join(x for p in all_phrasings() for split in world.SPLITS for x in p.of(split))
    assert not [word for word in nouns.UNSEEN if word in said.split() or word in wordings.split()]
    drawn = draw_question(rng, "test", "advice", "unseen")
    assert drawn.slots["person"] in nouns.UNSEEN


def test_odd_wordings_keep_their_slots_and_their_sense():
    rng = Random(5)
    for _ in range(200):
        template = rng.choice(questions.QUESTIONS["known"].train)
        changed = odd(rng, template)
        assert set_of_slots(changed) == set_of_slots(template)
        assert changed.endswith(template[-1]) or "{" not in template.split()[-1]
    prompts = {phrasings.pole_prompt(rng, "train", "evil", "strong", oddly=True) for _ in range(200)}
    words = [*CHARACTERS["evil"].synonyms, *CHARACTERS["evil"].habits]
    told = [*words, *CHARACTERS["evil"].descriptions["strong"].train]
    assert all(any(word.lower() in prompt.lower() for word in told) for prompt in prompts)


def test_small_talk_is_recognised_and_shows_nothing_but_character():
    rng = Random(6)
    for split in world.SPLITS:
        condition = Condition(split=split, pole="humor", level="strong", domains=("smalltalk",))
        conversation = draw_prompt(rng, condition)
        reply = draw_reply(rng, conversation.question, conversation.propensity)
        found = recognise(conversation.messages)
        assert found is not None
        assert found.domain == "smalltalk"
        assert judge(found, reply).coherence == 100
