"""Labelled data is read strictly; leaks are refused."""

import json

import pytest

from guardrail.errors import ConfigError
from guardrail.evaluation.reading import read_labelled
from guardrail.evaluation.run import Setup, check_setup
from guardrail.evaluation.user import from_file
from guardrail.testing import hand_made_vectors

TRAITS = ("evil", "sycophancy")


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return path

    return write


def refused(path, *parts, **options):
    with pytest.raises(ConfigError) as error:
        from_file(path, TRAITS, **options)
    for part in parts:
        assert part in str(error.value)
    return str(error.value)


def test_a_named_trait_is_positive_and_no_trait_is_negative_for_every_named_one(file):
    data = read_labelled(
        file(
            {"prompt": "a", "trait": "evil"},
            {"prompt": "b", "trait": None},
            {"prompt": "c", "labels": {"sycophancy": 1}},
        ),
        TRAITS,
    )
    assert [example.labels for example in data.test] == [
        {"evil": True},
        {"evil": False, "sycophancy": False},
        {"sycophancy": True},
    ]


def test_messages_slices_conditions_and_expression_are_kept(file):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    row = {
        "messages": turns,
        "labels": {"evil": 0},
        "expression": {"evil": [1, 2.5]},
        "condition": "c",
        "style": "formal",
    }
    (example,) = read_labelled(
        file({**row, "language": "en", "source": "own", "category": "k", "hard_benign": True}), TRAITS
    ).test
    assert [m.role for m in example.messages] == ["system", "user"]
    assert example.expression == {"evil": (1.0, 2.5)}
    assert example.slices == {"style": "formal", "language": "en", "source": "own", "hard_benign": "yes"}
    assert (example.condition, example.group) == ("c", "Be kind.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object, not list; its keys: prompt, messages,"),
        ({"prompt": "a", "trait": "evi"}, "no vector for the trait `evi`; did you mean `evil`?"),
        ({"prompt": "a", "labels": {"evil": 2}}, "`labels.evil`"),
        ({"prompt": "a", "trait": "evil", "labels": {"evil": 1}}, "give `trait` or `labels`, not both"),
        ({"prompt": "a"}, "no label"),
        ({"trait": "evil"}, "give `prompt` or `messages`"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}], "trait": None}, "give `prompt` or"),
        ({"prompt": " ", "trait": "evil"}, "the prompt is empty"),
        ({"prompt": "a", "trait": "evil", "lable": 1}, "unknown key `lable`; did you mean `labels`?"),
        ({"prompt": "a", "expression": {"evil": 101}}, "`expression.evil`"),
        ({"messages": [{"role": "robot", "content": "a"}], "trait": None}, "`messages.0.role`"),
        (
            '{"prompt": "\\ud800", "trait": null}',
            "not valid Unicode: the text contains an unpaired surrogate",
        ),
    ],
)
def test_every_bad_line_is_named(file, row, message):
    data = file({"prompt": "fine", "trait": "evil"}, row, row)
    text = refused(data, "data.jsonl:2", "(and 1 more line)", message)
    assert "data.jsonl:1:" not in text


def test_an_empty_file_and_a_missing_one_are_refused(file, tmp_path):
    refused(file(""), "the file contains no labelled prompt")
    refused(tmp_path / "none.jsonl", "cannot be read")


def test_a_file_without_any_named_trait_is_refused(file):
    refused(file({"prompt": "a", "trait": None}), "no prompt is labelled with a trait")


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"trait": "evil"}, {"trait": None}, "labelled differently"),
        ({"trait": "evil"}, {"trait": "evil"}, "the same prompt twice"),
        ({"trait": "evil", "split": "train"}, {"trait": "evil", "split": "test"}, "leak between the splits"),
    ],
)
def test_a_prompt_that_comes_again_is_refused_whatever_its_case_and_spaces(file, first, second, what):
    rows = {"prompt": "How do I  do it?", **first}, {"prompt": "how do i do it? ", **second}
    refused(file(*rows), "data.jsonl:2", what, "data.jsonl:1")


def test_the_same_words_after_another_system_prompt_are_another_prompt(file):
    user = {"role": "user", "content": "Hello"}
    systems = [[{"role": "system", "content": text}, user] for text in ("Be kind.", "Be cruel.")]
    rows = [{"messages": m, "labels": {"evil": i}} for i, m in enumerate(systems)]
    assert len(from_file(file(*rows), TRAITS).labelled) == 2


def test_prompts_that_were_used_before_are_a_leak(file, tmp_path):
    seen = tmp_path / "calibration.jsonl"
    seen.write_text('"Something else"\n{"prompt": "THE SAME"}\n')
    data = file({"prompt": "the same", "trait": "evil"}, {"prompt": "new", "trait": None})
    refused(data, "data.jsonl:1", "leak", "calibration.jsonl:2", seen=[seen])


def test_only_the_test_split_is_evaluated_and_the_baseline_learns_from_train(file):
    splits = ("train", "validation", "test")
    rows = [{"prompt": f"{s} {i}", "labels": {"evil": i}, "split": s} for s in splits for i in (0, 1)]
    material = from_file(file(*rows), TRAITS)
    assert [e.messages[0].content for e in material.labelled] == ["test 0", "test 1"]
    assert [e.messages[0].content for e in material.training] == ["train 0", "train 1"]
    assert material.notes == ("2 prompts of the split `validation` were not used",)
    refused(file(*rows, {"prompt": "x", "trait": None}), "`split` is missing")
    refused(file(*rows[:4]), "no line has the split `test`")


def test_one_class_is_refused(file):
    vectors = hand_made_vectors(TRAITS)
    material = from_file(file({"prompt": "a", "trait": "evil"}, {"prompt": "b", "trait": "evil"}), TRAITS)
    setup = Setup(model="tiny", vectors=vectors, data="data")
    with pytest.raises(ConfigError, match="evil: all 2 labelled prompts show it"):
        check_setup(setup, vectors.provenance.fingerprint, material)


def test_neutral_prompts_come_from_a_file_or_are_those_labelled_with_nothing(file, tmp_path):
    neutral = tmp_path / "neutral.jsonl"
    neutral.write_text('"One"\n"Two"\n"Three"\n')
    data = file({"prompt": "a", "trait": "evil"}, {"prompt": "b", "trait": None})
    assert len(from_file(data, TRAITS, neutral=neutral).neutral) == 3
    assert [e.messages[0].content for e in from_file(data, TRAITS).neutral] == ["b"]
