"""Trait definitions: the built-in ones, files of ours, published ones, and all that can be wrong."""

import json
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from guardrail.cli import run
from guardrail.errors import ConfigError, TraitError
from guardrail.traits import (
    builtin_traits,
    default_rubric,
    definition_schema,
    dump_definition,
    fill,
    load_definition,
    parse_definition,
)
from guardrail.traits.checks import normal
from guardrail.traits.files import FOLDER

SEVEN = ("apathy", "evil", "hallucination", "humor", "optimism", "politeness", "sycophancy")
NAMED = {
    "apathy": ("apath",),
    "evil": ("evil", "malic", "cruel"),
    "hallucination": ("hallucin", "made up", "fabricat"),
    "humor": ("humor", "humour", "funny", "joke"),
    "optimism": ("optimis", "pessimis", "hopeful"),
    "politeness": ("polite", "rude", "courte"),
    "sycophancy": ("sycophan", "flatter"),
}
"""Words with which a question would ask for the trait, in place of giving room for it."""

MINE = """
name: contempt
description: Answers with contempt for the person who asks.
instructions:
  - {positive: Look down on the user., negative: Look up to the user.}
extraction: [How do I boil an egg?, Is tea better than coffee?]
evaluation: [Where should I go on holiday?]
rubric: |
  {question} and {answer}, {other}: 0-100 or REFUSAL
"""


def published(pairs=5, questions=40, **changes):
    return {
        "instruction": [{"pos": f"Be so {i}.", "neg": f"Be not so {i}."} for i in range(pairs)],
        "questions": [f"What about {i}?" for i in range(questions)],
        "eval_prompt": "The trait: **smug**. This means pride.\n\n{question} {answer} REFUSAL 100",
        **changes,
    }


def wrong(text, tmp_path, name="t.yaml"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TraitError) as caught:
        load_definition(tmp_path / name)
    assert caught.value.source == str(tmp_path / name)
    return [(p.key, p.message) for p in caught.value.problems]


def test_the_published_seven_the_axis_and_refusal_are_built_in():
    assert builtin_traits() == tuple(sorted((*SEVEN, "assistant", "refusal")))


@pytest.mark.parametrize("name", SEVEN)
class TestBuiltIn:
    def test_it_has_what_extraction_needs(self, name):
        definition = load_definition(name)
        assert (definition.name, len(definition.instructions)) == (name, 5)
        assert (len(definition.extraction), len(definition.evaluation)) == (20, 20)
        assert len(definition.description) > 50

    def test_its_pairs_differ_in_the_trait_and_hardly_in_length(self, name):
        for pair in load_definition(name).instructions:
            assert 0.6 < len(pair.positive) / len(pair.negative) < 1.7
            assert normal(pair.positive) != normal(pair.negative)

    def test_its_questions_do_not_ask_for_the_trait(self, name):
        definition = load_definition(name)
        for question in (*definition.extraction, *definition.evaluation):
            assert not [word for word in NAMED[name] if word in question.lower()], question

    def test_its_rubric_can_be_filled_in_and_says_what_to_answer(self, name):
        rubric = load_definition(name).rubric
        assert rubric.count("{question}") == rubric.count("{answer}") == 1
        assert "REFUSAL" in rubric
        assert "100" in rubric
        filled = fill(rubric, "Why?", "Because.")
        assert "{" not in filled
        assert "Why?" in filled
        assert "Because." in filled

    def test_it_fits_the_schema_and_survives_a_round_trip(self, name):
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        jsonschema.validate(YAML(typ="safe").load(text), definition_schema())
        definition = load_definition(name)
        again = parse_definition(dump_definition(definition))
        assert replace(again, sha256="") == replace(definition, sha256="")


def test_no_question_belongs_to_two_traits():
    asked = Counter(
        normal(q) for n in SEVEN for d in [load_definition(n)] for q in (*d.extraction, *d.evaluation)
    )
    assert [question for question, times in asked.items() if times > 1] == []


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "x.yaml").write_text(MINE)
    definition = load_definition(str(tmp_path / "x.yaml"))
    assert definition.name == "contempt"
    assert definition.instructions[0].negative == "Look up to the user."
    assert (
        fill(definition.rubric, "{answer}", "{question}")
        == "{answer} and {question}, {other}: 0-100 or REFUSAL\n"
    )
    assert len(definition.sha256) == 64
    with pytest.raises(FrozenInstanceError):
        definition.name = "x"


def test_a_definition_without_a_rubric_gets_one_that_says_what_the_trait_means():
    definition = parse_definition(MINE.split("rubric:")[0])
    assert definition.rubric == default_rubric("contempt", "Answers with contempt for the person who asks.")
    assert "Answers with contempt" in definition.rubric


def test_the_sha256_follows_the_bytes():
    assert (
        parse_definition(MINE).sha256 == parse_definition(MINE).sha256 != parse_definition(MINE + "\n").sha256
    )


def test_any_language(tmp_path):
    text = MINE.replace("How do I boil an egg?", "卵のゆで方を教えてください。").replace(
        "contempt\n", "軽蔑\n"
    )
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")
    definition = load_definition(tmp_path / "t.yaml")
    assert (definition.name, definition.extraction[0]) == ("軽蔑", "卵のゆで方を教えてください。")
    assert "卵のゆで方を教えてください。" in dump_definition(definition)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "name: contempt",
            "name: 'a/b'",
            ("name", "must be letters, digits, `_`, `.` and `-`, starting with a letter or digit, not `a/b`"),
        ),
        ("name: contempt", "nam: contempt", ("nam", "unknown key; did you mean `name`?")),
        ("name: contempt\n", "", ("name", "is missing")),
        (
            "extraction: [How",
            "extraction: [3, How",
            ("extraction[0]", "must be text or a mapping of keys to values, not 3"),
        ),
        ("extraction: [How", "extraction: ['  ', How", ("extraction[0]", "must not be empty")),
        ("[Where should I go on holiday?]", "[]", ("evaluation", "must contain at least one item")),
        ("[Where should", "[IS TEA better, than coffee, Where should", None),
        (
            "Where should I go on holiday?",
            "IS TEA better than  coffee",
            ("evaluation[0]", "the same as extraction[1]"),
        ),
        (
            "Look up to the user.",
            "look down on the user",
            ("instructions[0]", "positive and negative are the same"),
        ),
        (
            "negative: Look",
            "negativ: Look",
            ("instructions[0].negativ", "unknown key; did you mean `negative`?"),
        ),
        ("{question} and", "The", ("rubric", "lacks the placeholder {question}")),
        ("{answer}", "{ANSWER}", ("rubric", "lacks the placeholder {answer}")),
        ("description: A", "name: again\ndescription: A", ("name", "duplicate key; the first is at line 2")),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path, old, new, problem):
    assert old in MINE
    text = MINE.replace(old, new, 1)
    if problem is None:
        assert parse_definition(text)
        return
    ((key, message), *more) = wrong(text, tmp_path)
    assert (key, more) == (problem[0], [])
    assert problem[1] in message


def test_all_problems_are_told_at_once_with_their_lines(tmp_path):
    text = MINE.replace("{answer}", "").replace("[Where should I go on holiday?]", "[Where, where]")
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(TraitError) as caught:
        load_definition(tmp_path / "t.yaml")
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/t.yaml:7:21: evaluation[1]: is the same as evaluation[0]",
        f"{tmp_path}/t.yaml:8:1: rubric: lacks the placeholder {{answer}}",
    ]


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "\t- x", "just text"])
def test_what_is_no_mapping_is_told(tmp_path, text):
    assert len(wrong(text, tmp_path)) == 1


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraitError, match=r"b\.yaml: the file is not UTF-8"):
        load_definition(tmp_path / "b.yaml")
    with pytest.raises(TraitError, match=r"none\.yaml: cannot be read: No such file"):
        load_definition(tmp_path / "none.yaml")
    with pytest.raises(TraitError, match="did you mean `evil`"):
        load_definition("evli")
    assert issubclass(TraitError, ConfigError)


class TestPublished:
    def write(self, path, data):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(data))
        return path

    def test_one_file_holds_both_halves(self, tmp_path):
        definition = load_definition(self.write(tmp_path / "smug.json", published()))
        assert (definition.name, definition.description) == ("smug", "This means pride.")
        assert definition.extraction == tuple(f"What about {i}?" for i in range(20))
        assert definition.evaluation == tuple(f"What about {i}?" for i in range(20, 40))
        assert (definition.instructions[4].positive, definition.instructions[4].negative) == (
            "Be so 4.",
            "Be not so 4.",
        )
        assert definition.rubric == published()["eval_prompt"]

    def test_two_files_hold_one_half_each(self, tmp_path):
        questions = published()["questions"]
        first = published(questions=20)
        path = self.write(tmp_path / "trait_data_extract" / "smug.json", first)
        with pytest.raises(
            TraitError, match=r"trait_data_eval/smug\.json with the evaluation questions is missing"
        ):
            load_definition(path)
        other = tmp_path / "trait_data_eval" / "smug.json"
        self.write(other, first | {"questions": questions[20:]})
        definition = load_definition(path)
        assert (definition.extraction, definition.evaluation) == (
            tuple(questions[:20]),
            tuple(questions[20:]),
        )
        with pytest.raises(TraitError, match="only the evaluation questions"):
            load_definition(other)
        self.write(other, first)
        with pytest.raises(TraitError, match=r"evaluation\[0\]: is the same as extraction\[0\]"):
            load_definition(path)
        self.write(other, first | {"questions": questions[20:], "eval_prompt": "{question} {answer}"})
        own = load_definition(path)
        assert own.rubric_for(held_out=False) == definition.rubric
        assert own.rubric_for(held_out=True) == own.evaluation_rubric == "{question} {answer}"
        assert own.pairs(held_out=True) == definition.instructions

    @pytest.mark.parametrize(
        ("data", "key"),
        [
            (published(questions=39), "questions"),
            (published(questions=0), "extraction"),
            (published(pairs=0), "instructions"),
            (published(instruction=[{"pos": "x"}]), "instructions[0].negative"),
            (published(instruction="x"), "instructions"),
            (published(eval_prompt="{question}"), "rubric"),
            (published(extra=1), "extra"),
            ([], ""),
        ],
    )
    def test_what_is_wrong_is_told(self, tmp_path, data, key):
        keys = [k for k, _ in wrong(json.dumps(data), tmp_path, "t.json")]
        assert key in keys

    def test_what_is_no_json_is_told_with_its_place(self, tmp_path):
        (tmp_path / "t.json").write_text('{"a":\n 1,}')
        with pytest.raises(TraitError, match=r"t\.json:2:\d+: not JSON"):
            load_definition(tmp_path / "t.json")


def test_lists_of_prompts_are_paired(tmp_path):
    text = "name: x\npositive: [A, B]\nnegative: [C, D]\nquestions: [one, two, three, four]"
    definition = parse_definition(text)
    assert [(p.positive, p.negative) for p in definition.instructions] == [("A", "C"), ("B", "D")]
    assert (definition.extraction, definition.evaluation) == (("one", "two"), ("three", "four"))
    again = parse_definition(text.replace(", D", ""))
    assert [(p.positive, p.negative) for p in again.instructions] == [("A", "C"), ("B", "C")]
    assert wrong(text.replace(", B", ""), tmp_path)[0] == (
        "negative",
        "1 positive and 2 negative prompts cannot be paired",
    )


def test_list_shows_vectors_and_definitions(capsys):
    assert run(["traits", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(SEVEN) <= set(rows)
    assert all(rows[name]["definition"] and rows[name]["description"] for name in SEVEN)
    assert rows["evil"]["vectors"]
    assert rows["evil"]["layer"] >= 1


def test_show_reads_files_too(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(MINE)
    assert run(["traits", "show", str(tmp_path / "x.yaml")]) == 0
    assert "Is tea better than coffee?" in capsys.readouterr().out
    assert run(["traits", "show", "politeness", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["extraction"]) == 20
    (tmp_path / "x.yaml").write_text("name: x")
    assert run(["traits", "show", str(tmp_path / "x.yaml")]) == 2
    assert f"{tmp_path}/x.yaml:1:1: instructions: is missing" in capsys.readouterr().err


def test_the_published_files_load_where_they_are_at_hand():
    folder = Path(__file__).parents[3] / "shared" / "data" / "trait-definitions"
    files = sorted(folder.glob("*.json"))
    if not files:
        pytest.skip("the published definitions are not beside this checkout")
    for file in files:
        definition = load_definition(file)
        assert (len(definition.instructions), len(definition.extraction), len(definition.evaluation)) == (
            5,
            20,
            20,
        )
        assert definition.description


def test_the_readmes_example_is_a_definition():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    definition = parse_definition(text.split("```yaml\n")[1].split("```")[0])
    assert (definition.name, len(definition.extraction), len(definition.evaluation)) == ("contempt", 1, 1)


# --- roles, questions with two sides, and what goes with the evaluation questions -------------------------

ROLES = """
name: assistant
default: ["", Be an assistant.]
roles:
  pirate: [Be a pirate., Talk as a pirate.]
  ghost: [Be a ghost.]
extraction: [Who are you?, What now?]
evaluation: [And then?]
rubric: "{question} {answer}: not {role}?"
"""
TWO_SIDED = """
name: refusal
extraction:
  - {positive: Harm him., negative: Help him.}
  - {positive: Rob her., negative: Thank her.}
evaluation:
  - {positive: Break it., negative: Mend it.}
"""


def test_roles_are_paired_with_the_default_assistant():
    definition = parse_definition(ROLES)
    assert definition.roles == ("pirate", "pirate", "ghost")
    assert [(p.positive, p.negative) for p in definition.instructions] == [
        ("", "Be a pirate."),
        ("Be an assistant.", "Talk as a pirate."),
        ("", "Be a ghost."),
    ]
    assert definition.rubric_for("ghost") == "{question} {answer}: not ghost?"
    assert "{role}" in parse_definition(ROLES.partition("rubric")[0]).rubric


def test_questions_may_make_the_difference():
    definition = parse_definition(TWO_SIDED)
    assert definition.extraction == ("Help him.", "Thank her.")
    assert [definition.asked(q, "positive") for q in definition.extraction] == ["Harm him.", "Rob her."]
    assert definition.asked("Mend it.", "negative") == "Mend it."
    assert [(p.positive, p.negative) for p in definition.instructions] == [("", "")]


@pytest.mark.parametrize("text", [ROLES, TWO_SIDED, MINE])
def test_every_kind_of_definition_comes_back_from_its_text(text):
    definition = parse_definition(text)
    own = replace(
        definition,
        evaluation_rubric="{question}, {answer}, {role}",
        evaluation_instructions=definition.instructions[:1] if text == MINE else (),
    )
    assert replace(parse_definition(dump_definition(own)), sha256="") == replace(own, sha256="")


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ("ghost: [Be a ghost.]", "ghost: []", "roles.ghost", "at least one item"),
        ('default: ["", Be an assistant.]', "default: []", "default", "at least one item"),
        ("not {role}?", "?", "rubric", "lacks the placeholder {role}"),
        ("name: assistant", "name: a\ninstructions: [{positive: a, negative: b}]", "roles", "either"),
    ],
)
def test_what_is_wrong_with_roles_is_told(tmp_path, old, new, key, message):
    assert old in ROLES
    ((found, text),) = wrong(ROLES.replace(old, new), tmp_path)
    assert (found, message in text) == (key, True)


def test_one_question_without_sides_needs_instructions(tmp_path):
    text = TWO_SIDED.replace("{positive: Break it., negative: Mend it.}", "Mend it.")
    ((key, message),) = wrong(text, tmp_path)
    assert key == "instructions"
    assert "is missing; instead of it there may be `roles`" in message


@pytest.mark.parametrize("name", ["assistant", "refusal"])
def test_ready_definitions_that_are_no_pairs_of_instructions(name, capsys):
    definition = load_definition(name)
    assert (len(definition.extraction), len(definition.evaluation)) == (20, 20)
    assert run(["traits", "show", name]) == 0
    shown = capsys.readouterr().out
    assert "(no system prompt)" in shown
    assert ("pirate captain" in shown) == (name == "assistant")
    assert run(["traits", "list"]) == 0
    assert name in capsys.readouterr().out
