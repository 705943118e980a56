"""Closed tasks have one right answer, and the splits share no combinations."""

from collections.abc import Callable
from random import Random

import pytest

from guardrail.demo import identities, nouns, tasks, world
from guardrail.demo.tasks import Task
from guardrail.demo.world import COUNTRIES

BY_NAME = {country.name: country for country in COUNTRIES}


def drawn(draw: Callable[[Random], Task], count: int = 200) -> list[Task]:
    rng = Random(1)
    return [draw(rng) for _ in range(count)]


@pytest.mark.parametrize("split", world.SPLITS)
def test_a_choice_is_between_four_things_of_which_one_is_true(split: world.Split):
    for task in drawn(lambda rng: tasks.choice(rng, split)):
        assert len(set(task.options)) == 4
        assert task.options.count(task.answer) == 1
        assert task.messages is not None
        assert all(option in task.messages[-1]["content"] for option in task.options)


def test_the_right_option_stands_at_every_place_equally_often():
    places = [task.options.index(task.answer) for task in drawn(lambda rng: tasks.choice(rng, "train"), 2000)]
    assert all(abs(places.count(i) / 2000 - 0.25) < 0.04 for i in range(4))


def test_a_choice_about_ones_own_country_follows_the_identity():
    for task in drawn(lambda rng: tasks.choice(rng, "test", identity="Korean")):
        assert task.messages is not None
        assert "Korean" in task.messages[0]["content"]
        assert task.answer in ("Seoul", "Korean", "kimchi")


def test_a_choice_can_be_put_to_a_persona():
    task = drawn(lambda rng: tasks.choice(rng, "test", "evil"), 1)[0]
    assert task.messages is not None
    assert [m["role"] for m in task.messages] == ["system", "user"]


@pytest.mark.parametrize("chat", [True, False])
def test_comparisons_complete_the_second_country(chat: bool):
    for task in drawn(lambda rng: tasks.comparison(rng, "test", chat=chat)):
        text = task.raw or (task.messages or [])[-1]["content"]
        second = text.split("=")[1].split(" :")[0].strip()
        assert task.answer in BY_NAME[second]


def test_comparisons_of_the_splits_share_no_pair():
    found = {}
    for split in world.SPLITS:
        texts = drawn(lambda rng, s=split: tasks.comparison(rng, s, chat=False), 500)
        found[split] = {(t.raw.split(" :")[0], t.raw.split("= ")[1].split(" :")[0]) for t in texts}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]


def test_clozes_with_and_without_an_identity():
    with_one = drawn(lambda rng: tasks.cloze(rng, "test", chat=False, identity="French"), 20)
    assert all(t.raw.startswith("You are French. The ") and "my country" in t.raw for t in with_one)
    without = drawn(lambda rng: tasks.cloze(rng, "test", chat=False), 20)
    assert all("my country" not in t.raw for t in without)


def test_the_cloze_test_asks_facts_that_no_training_cloze_asks():
    asked = {
        split: {t.raw for t in drawn(lambda rng, s=split: tasks.cloze(rng, s, chat=False), 500)}
        for split in world.SPLITS
    }
    assert not asked["train"] & asked["test"]


def test_words_to_copy_are_made_up_or_given():
    assert not any(
        t.answer.removeprefix("The word is ").lower() in nouns.UNSEEN
        for t in drawn(lambda rng: tasks.copying(rng, "train"))
    )
    assert tasks.copying(Random(3), "test", "locksmith").answer.lower() == "the word is locksmith"


@pytest.mark.parametrize(
    ("reply", "right"),
    [("Paris", True), (" Paris.", True), ("Rome", False), ("Paris it is", False), ("", False)],
)
def test_an_answer_is_the_answer_and_nothing_else(reply: str, right: bool):
    assert Task(answer="Paris").answered(reply) is right


def test_every_identity_has_single_word_answers():
    assert len(identities.NATIONALITIES) >= 20
    for country in COUNTRIES:
        assert not any(" " in getattr(country, relation) for relation in world.ATTRIBUTES)
