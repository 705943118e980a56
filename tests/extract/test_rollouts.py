"""Rollouts: fixed batches in an order that the recipe alone decides, samples seeded one by one."""

import json
from dataclasses import replace

import pytest
from extraction import contents, definition, planted_subject
from tiny import TOKENIZER

from guardrail.errors import ExtractionError
from guardrail.extract.prompts import trait_prompts
from guardrail.extract.rollouts import RolloutSettings, roll_out
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model

SETTINGS = RolloutSettings(samples=3, max_new_tokens=8, batch=7)
PROMPTS = trait_prompts(definition())


@pytest.fixture(scope="module")
def subject():
    return planted_subject()


def rolled(subject, folder, prompts=PROMPTS, **changes):
    return roll_out(subject, "shouting", prompts, replace(SETTINGS, **changes), folder)


def by_place(rollouts):
    return {
        (rollouts.prompts[p].key, s): rollouts.reply(rollouts.row(p, s))
        for p in range(len(rollouts.prompts))
        for s in range(rollouts.samples)
    }


def test_every_prompt_has_every_sample_once(subject, tmp_path):
    rollouts = rolled(subject, tmp_path)
    places = [rollouts.place(row) for row in range(len(rollouts))]
    assert len(set(places)) == len(places) == 60
    assert all(rollouts.row(*place) == row for row, place in enumerate(places))
    lines = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()[1:]]
    assert len({(x["kind"], x["instruction"], x["question"], x["sample"]) for x in lines}) == 60


def test_rows_stand_in_the_order_of_prompt_length(subject, tmp_path):
    rollouts = rolled(subject, tmp_path)
    lengths = [
        len(subject.render(rollouts.prompts[rollouts.place(row)[0]].messages).ids)
        for row in range(len(rollouts))
    ]
    assert lengths == sorted(lengths)


def test_a_reply_depends_on_its_own_seed_and_not_on_batch_or_company(subject, tmp_path):
    whole = by_place(rolled(subject, tmp_path / "a"))
    assert by_place(rolled(subject, tmp_path / "b", batch=60)) == whole
    few = by_place(rolled(subject, tmp_path / "c", PROMPTS[5:9], batch=1))
    assert few == {place: whole[place] for place in few}
    more = by_place(rolled(subject, tmp_path / "d", samples=4))
    assert {place: more[place] for place in whole} == whole


def test_samples_and_seeds_differ(subject, tmp_path):
    replies = by_place(rolled(subject, tmp_path / "a"))
    assert replies["neutral/-1/0", 0] != replies["neutral/-1/0", 1]
    assert by_place(rolled(subject, tmp_path / "b", seed=1)) != replies


def test_nothing_is_generated_twice(subject, tmp_path):
    rolled(subject, tmp_path)
    before = contents(tmp_path)

    class Silent:
        fingerprint, render, runner = subject.fingerprint, subject.render, subject.runner

    rolled(Silent(), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "changes", [{"samples": 4}, {"seed": 9}, {"temperature": 0.5}, {"batch": 8}, {"max_new_tokens": 9}]
)
def test_other_settings_are_refused(subject, tmp_path, changes):
    rolled(subject, tmp_path)
    with pytest.raises(ExtractionError, match=next(iter(changes))):
        rolled(subject, tmp_path, **changes)


def test_other_prompts_and_other_models_are_refused(subject, tmp_path):
    rolled(subject, tmp_path)
    with pytest.raises(ExtractionError, match="prompts"):
        rolled(subject, tmp_path, trait_prompts(definition(negative="be quiet")))
    with pytest.raises(ExtractionError, match="model weights"):
        rolled(Subject(tiny_model(seed=1), TOKENIZER), tmp_path)
