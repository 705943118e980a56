"""What a set of labelled prompts has to be, near duplicates among them, and what is held out of what."""

import json
from dataclasses import replace

import numpy as np
import pytest
from labelled import rows, texts

from guardrail.errors import ConfigError
from guardrail.extract.fit.duplicates import grouped
from guardrail.extract.fit.folds import KNOWN, OTHERS, UNSEEN, checks, strata_of, weights
from guardrail.extract.fit.prepared import prepare
from guardrail.extract.fit.rows import LabelledPrompt, sampled
from guardrail.extract.fit.set_aside import set_aside
from guardrail.types import Message


def one(text, harm=True, place="x:1", **fields):
    return LabelledPrompt(place=place, messages=(Message("user", text),), labels={"harm": harm}, **fields)


def labels_of(given):
    return np.array([row.labels["harm"] for row in given])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            [one(text, True, f"x:{i}") for i, (text, _) in enumerate(texts(60))],
            "all 60 prompts are labelled 1",
        ),
        (rows(10), "harm: 5 prompts labelled 1 and 5 labelled 0 are too few; it takes 20 of each"),
        ([*rows(60), one("Same", True, "y:1"), one("same ", False, "y:2")], "y:2: labelled differently"),
        ([replace(row, labels={"do harm": True}) for row in rows(60)], "the label `do harm` cannot be"),
    ],
)
def test_what_nothing_can_be_fitted_on_is_named(given, told):
    with pytest.raises(ConfigError) as caught:
        prepare(given)
    assert told in str(caught.value)


def test_a_label_that_nobody_gave_is_named():
    with pytest.raises(ConfigError, match="no prompt is labelled for `hram`; labels: harm"):
        prepare(rows(60), ["hram"])


def test_a_repeated_prompt_counts_once():
    given = prepare([*rows(60), replace(rows(60)[0], place="again:1")])
    assert (len(given.rows), given.repeated) == (60, 1)


def test_near_duplicates_across_given_parts_are_refused_with_both_places():
    parts = [replace(row, split="train" if i < 80 else "validation") for i, row in enumerate(rows(160))]
    text = parts[0].messages[0].content
    with pytest.raises(
        ConfigError, match=r"y:1 \(in `validation`\) is nearly the same as x:1 \(in `train`\)"
    ):
        prepare([*parts, one(f"{text} now", True, "y:1", split="validation")])
    with pytest.raises(ConfigError, match="y:1: the same prompt in the parts `train` and `validation`"):
        prepare([*parts, one(text, True, "y:1", split="validation")])


def test_near_duplicates_and_named_groups_are_one_group():
    system = Message("system", "You are the long and patient assistant of a bank in a small town by the sea.")
    given = [
        one("How do I bake a good loaf of bread?"),
        one("how do I bake a  good loaf of bread today?"),
        one("What is the capital of France?", group="g"),
        one("Name three rivers", group="g"),
        LabelledPrompt(place="x", messages=(system, Message("user", "one thing")), labels={"harm": True}),
        LabelledPrompt(place="x", messages=(system, Message("user", "other matter")), labels={"harm": True}),
    ]
    found = grouped(given)
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len(set(found.tolist())) == 4


def test_whole_sources_are_held_out_in_turn():
    given = rows(160)
    strata = strata_of(given, labels_of(given), np.arange(160))
    assert [(s.source, s.positive, len(s)) for s in strata] == [
        ("a", True, 40),
        ("c", True, 40),
        ("b", False, 40),
        ("d", False, 40),
    ]
    unseen, known = checks(given, strata, np.arange(160), 0)
    assert (unseen.name, known.name) == (UNSEEN, KNOWN)
    for fold in unseen.folds:
        held = {given[i].source for i in fold.test}
        assert len(held) == 2
        assert not held & {given[i].source for i in fold.train}
    for check in (unseen, known):
        assert sorted(np.concatenate([fold.test for fold in check.folds])) == list(range(160))


def test_a_class_of_one_source_and_categories_are_cut_into_parts():
    given = [
        replace(row, source="a" if i % 2 == 0 else "bcd"[i % 3], category=f"k{i % 7}" if i % 3 == 1 else "")
        for i, row in enumerate(rows(240))
    ]
    strata = strata_of(given, labels_of(given), np.arange(240))
    unseen, known = checks(given, strata, np.arange(240), 0)
    assert unseen.name == "unseen sources without the trait"
    for fold in unseen.folds:
        trained, held = ({given[i].category for i in side} - {""} for side in (fold.train, fold.test))
        assert held
        assert not trained & held
        assert set(labels_of(given)[fold.train]) == {True, False}
    assert len(known.folds) == 4


def test_near_duplicates_of_what_is_held_out_are_not_fitted_on():
    given, near = rows(160), {0, 1, 2, 3}
    groups = np.arange(160)
    groups[list(near)] = 0  # one of each source
    strata = strata_of(given, labels_of(given), np.arange(160))
    for check in checks(given, strata, groups, 0):
        for fold in check.folds:
            assert not near & set(fold.train.tolist()) or not near & set(fold.test.tolist())


def test_small_sources_are_one_stratum_and_strata_weigh_the_same():
    sizes = {"a": 50, "b": 30, "c": 4, "d": 3}
    given = [one(f"{name} {i}", source=name) for name, size in sizes.items() for i in range(size)]
    everything = np.arange(len(given))
    strata = strata_of(given, labels_of(given), everything)
    assert [(s.source, len(s)) for s in strata] == [("a", 50), ("b", 30), (OTHERS, 7)]
    found = weights(strata, everything, True)
    assert found.sum() == pytest.approx(1)
    assert [found[s.rows].sum() for s in strata] == pytest.approx([1 / 3] * 3)


def test_fewer_prompts_are_drawn_evenly():
    given = [one(f"{i}", i % 4 == 0, source="s" if i % 10 else "rare") for i in range(400)]
    found = sampled(given, 100, 0)
    assert len(found) == 100
    assert sum(row.labels["harm"] for row in found) == pytest.approx(25, abs=2)
    assert sum(row.source == "rare" for row in found) == pytest.approx(10, abs=2)
    assert found == sampled(given, 100, 0)
    with pytest.raises(ConfigError, match="--max-prompts 10"):
        sampled(given, 10, 0)


def test_harmless_prompts_are_set_aside_without_what_is_near_to_them():
    given = prepare([*rows(600), *(replace(row, tools=({"name": "x"},)) for row in rows(602)[600:])])
    parted = set_aside(given, 0)
    assert len(parted.aside) == 125
    assert not any(row.labels["harm"] or row.tools for row in parted.aside)
    near = grouped([*parted.rest, *parted.aside])
    assert not set(near[: len(parted.rest)]) & set(near[len(parted.rest) :])
    assert [json.loads(line) for line in parted.lines().splitlines()] == [
        {"messages": [{"role": "user", "content": row.messages[0].content}]} for row in parted.aside
    ]
    assert parted.describe(602).startswith(
        f"125 harmless prompts are set aside, {len(parted.rest)} are fitted"
    )
    twins = prepare([replace(row, group=f"{i // 2}") for i, row in enumerate(rows(600))])
    parted = set_aside(twins, 0)
    lost = 600 - 125 - len(parted.rest)
    assert lost >= 125, "the harmful twin of each that is set aside"
    text = f"{lost} have no part: nearly the same as one set aside, or of its `group` or `pair`"
    assert parted.describe(600).endswith(text)
    with pytest.raises(ConfigError, match=r"40 harmless .* it takes 250.* 125 others"):
        set_aside(prepare(rows(80)), 0)
