"""Prompts are read, counted once, and split so that no prompt is in both parts."""

import pytest

from guardrail.calibrate.sample import read, split
from guardrail.errors import CalibrationError


def render(messages):
    return [ord(letter) for message in messages for letter in message.content.strip()]


def named(*contents):
    return [(f"f:{i}", content) for i, content in enumerate(contents, 1)]


def prompts(*contents):
    return read(named(*contents), render, 1000).prompts


MANY = tuple(f"prompt number {i}" for i in range(100))


def test_both_parts_together_are_all_prompts_and_share_none():
    sample = split(prompts(*MANY), 0.2, seed=3)
    kept, out = {p.key for p in sample.calibration}, {p.key for p in sample.held_out}
    assert (len(kept), len(out), len(kept & out)) == (80, 20, 0)
    assert kept | out == {p.key for p in prompts(*MANY)}


def test_duplicates_are_counted_once_and_can_never_be_on_both_sides():
    sample = split(prompts(*MANY, *MANY[:30], *MANY[:10]), 0.5)
    assert sample.duplicates == 40
    assert not {p.key for p in sample.calibration} & {p.key for p in sample.held_out}
    assert len(sample.calibration) + len(sample.held_out) == 100


def test_prompts_with_the_same_tokens_are_duplicates():
    same = ("hello", " hello ", [{"role": "user", "content": "hello"}])
    assert split(prompts(*same, "other", "third"), 0.0).duplicates == 2


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    parts = [
        {p.key for p in split(prompts(*texts), 0.2, seed).held_out}
        for texts, seed in ((MANY, 0), (tuple(reversed(MANY)), 0), (MANY, 1))
    ]
    assert parts[0] == parts[1] != parts[2]


def test_the_hash_is_of_the_prompts_whatever_their_order_and_split():
    first, second = split(prompts(*MANY), 0.2, 0), split(prompts(*reversed(MANY)), 0.4, 5)
    assert first.sha256 == second.sha256 != split(prompts(*MANY[1:]), 0.2).sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("  ", "f:1: the last message is empty"),
        ([], "f:1: there are no messages"),
        ([{"role": "wizard", "content": "x"}], "f:1: unknown role 'wizard'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "f:1: content parts of type image_url"),
        ("x" * 1001, "f:1: the prompt has 1001 tokens, the model takes 1000"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_a_problem_with_its_line(content, message):
    found = read(named(content, "good"), render, 1000)
    assert len(found.prompts) == 1
    assert found.problems[0].startswith(message)


@pytest.mark.parametrize("texts", [(), ("one",), ("same", "same", "same")])
def test_too_few_distinct_prompts_are_refused_and_what_is_enough_is_said(texts):
    with pytest.raises(CalibrationError, match=r"too few; a rate of 1 % takes 99"):
        split(prompts(*texts))


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_a_share_is_a_share(share):
    with pytest.raises(CalibrationError, match="held-out share"):
        split(prompts(*MANY), share)
