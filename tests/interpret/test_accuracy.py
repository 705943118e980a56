"""`guardrail interpret accuracy`: items, prompts, scores, results and the verb."""

import json

import numpy as np
import pytest
import torch
from tiny import TOKENIZER

from guardrail.cli import run
from guardrail.errors import ConfigError
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy.items import Item, read_items
from guardrail.interpret.accuracy.personas import NOBODY, Persona, distinct, identity
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.accuracy.scoring import option_probabilities
from guardrail.interpret.accuracy.study import accuracy, mcnemar
from guardrail.interpret.forms import form_of
from guardrail.testing import tiny_model

ITEMS = [
    Item("What is one and one?", ("two", "three", "two hundred"), 0, "sums"),
    Item("Which is wet?", ("sand", "water", "fire"), 1, "things"),
    Item("Who barks?", ("a cat", "an owl", "a dog"), 2, "things"),
]
PIRATE = Persona("pirate", "You are a pirate.")


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), TOKENIZER)


@pytest.fixture(scope="module")
def base():
    return Subject(tiny_model("gpt2"), TOKENIZER, chat_template="builtin:plain")


def test_mmlu_files_and_json_lines(tmp_path):
    (tmp_path / "anatomy_test.csv").write_text('"What, ""then""?",a,b,c,"d, e",D\nNext?,1,2,3,4,A\n')
    (tmp_path / "law.csv").write_text("question,A,B,C,D,answer\nWhy?,a,b,c,d,B\n")
    lines = tmp_path / "own.jsonl"
    lines.write_text('{"question": "Q?", "options": ["x", "y"], "answer": "B"}\n')
    found = read_items([tmp_path, lines])
    assert found[0] == Item('What, "then"?', ("a", "b", "c", "d, e"), 3, "anatomy")
    assert [(one.subject, one.answer) for one in found[1:]] == [("anatomy", 0), ("law", 1), ("own", 1)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Why?,a,b,c,d,E\n", r"x\.csv:1: the last column must be the letter of an option, A to D, not `E`"),
        ("Why?,a,b,c,d,A\nWhat?,a,b,A\n", r"x\.csv:2: 4 columns, not 6"),
        ("Why?,a,,c,d,A\n", r"x\.csv:1: the question or an option is empty"),
        ("", "contains no question"),
    ],
)
def test_bad_tables_name_the_line(tmp_path, text, told):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_items([tmp_path / "x.csv"])


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(ConfigError, match="there is no CSV file"):
        read_items([tmp_path])


def test_personas_from_words():
    assert identity("Asian").text == "You are an Asian student."
    with pytest.raises(ConfigError, match="has no place for the word"):
        identity("Asian", "You are a student.")
    with pytest.raises(ConfigError, match="may contain"):
        identity("Asian", "You are {whom}.")
    with pytest.raises(ConfigError, match="two personas are called `pirate`"):
        distinct([PIRATE, Persona("pirate", "Arr.")])


@pytest.mark.parametrize(("scoring", "form"), [("letters", "chat"), ("text", "text")])
def test_the_prompt_holds_the_persona_and_what_is_scored(subject, scoring, form):
    asked = Asker(subject, form, scoring).ask(PIRATE, ITEMS[0])
    text = TOKENIZER.decode(asked.prompt)
    assert "You are a pirate." in text
    assert ("A. two" in text) == (scoring == "letters")
    rest = [TOKENIZER.decode(ids) for ids in asked.options]
    # what all answers begin with belongs to the prompt
    assert rest == (["A", "B", "C"] if scoring == "letters" else ["wo", "hree", "wo hundred"])


def test_letters_as_by_a_plain_forward(base):
    assert form_of(base) == "text"
    asker = Asker(base, "text", "letters")
    found = option_probabilities(asker, [(PIRATE, item) for item in ITEMS])
    for row, item in zip(found, ITEMS, strict=True):
        asked = asker.ask(PIRATE, item)
        with torch.no_grad():
            logits = base.model(torch.tensor([asked.prompt])).logits[0, -1].double()
        expected = logits[[option[0] for option in asked.options]].softmax(-1)
        assert row == pytest.approx(expected.numpy(), abs=1e-5)


def test_texts_as_by_a_plain_forward(subject):
    asker = Asker(subject, "chat", "text")
    (found,) = option_probabilities(asker, [(NOBODY, ITEMS[0])])
    asked, scores = asker.ask(NOBODY, ITEMS[0]), []
    for option, text in zip(asked.options, ITEMS[0].options, strict=True):
        with torch.no_grad():
            logs = subject.model(torch.tensor([[*asked.prompt, *option]])).logits[0].log_softmax(-1)
        places = range(len(asked.prompt) - 1, len(asked.prompt) + len(option) - 1)
        total = sum(logs[place, token] for place, token in zip(places, option, strict=True))
        scores.append(float(total) / len(text))
    assert found == pytest.approx(np.exp(scores) / np.exp(scores).sum(), abs=1e-4)


def test_effects_are_counted_against_no_persona(subject):
    found = accuracy(Asker(subject, "chat", "letters"), ITEMS, [PIRATE, Persona("same", "")], "tiny")
    nobody, pirate, same = found.personas
    assert nobody.effect is None
    assert same.effect is not None
    assert same.effect.changed.value == same.effect.probability.value == 0
    hits = [[a == i.answer for a, i in zip(one.answers, ITEMS, strict=True)] for one in (nobody, pirate)]
    assert pirate.effect is not None
    assert pirate.effect.difference.value == pytest.approx(np.mean(hits[1]) - np.mean(hits[0]))
    assert pirate.effect.gained - pirate.effect.lost == sum(hits[1]) - sum(hits[0])
    assert set(nobody.by_subject) == {"sums", "things"}


def test_mcnemar_looks_at_items_that_changed():
    before, after = np.array([True] * 9 + [False] * 6), np.array([True] * 9 + [True] * 6)
    assert mcnemar(before, after) == pytest.approx(2 * 0.5**6)
    assert mcnemar(before, before) == 1


def saved(tmp_path, items):
    file = tmp_path / "items.jsonl"
    rows = [{"question": i.question, "options": list(i.options), "answer": i.answer} for i in items]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_the_verb_writes_a_page_and_the_items_that_personas_change(tmp_path, capsys):
    page, changed = tmp_path / "a.html", tmp_path / "changed.jsonl"
    given = ["--data", saved(tmp_path, ITEMS), "--identity", "French", "--trait", "evil", "--device", "cpu"]
    command = ["interpret", "accuracy", *given, "--html", str(page), "--changed", str(changed)]
    command += ["--figures", str(tmp_path / "drawn")]
    assert run(command) == 0
    told = capsys.readouterr().out
    assert "3 items (chat, text)" in told
    assert sorted(one.name for one in (tmp_path / "drawn").iterdir()) == [
        "accuracy-by-persona.png",
        "accuracy-by-persona.svg",
    ]
    text = page.read_text()
    assert "<svg" in text
    assert "You are French." in text
    if changed.read_text():
        assert read_items([changed])
    assert run([*command[:2], *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["personas"]] == ["none", "French", "evil"]


def test_what_is_missing_is_named(tmp_path, capsys):
    assert run(["interpret", "accuracy", "--model", "some/model", "--identity", "x"]) == 2
    assert "no items: name a CSV or JSON Lines file" in capsys.readouterr().err
    given = saved(tmp_path, ITEMS)
    assert run(["interpret", "accuracy", "--model", "some/model", "--data", given]) == 2
    assert "no persona: name some with" in capsys.readouterr().err
