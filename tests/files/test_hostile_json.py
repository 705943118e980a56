"""Readers of JSON: whatever stands in the place of any value, only errors of ours come out."""

import json

import pytest
from hostile import DEEP, VALUES, damaged, ours, variants
from worlds import FINGERPRINT, loaded, rule, world

from guardrail.calibration.values import Calibration
from guardrail.cli.models import read_fingerprint
from guardrail.cli.prompts import from_json_lines
from guardrail.errors import CalibrationError
from guardrail.evaluation.capability import read_questions
from guardrail.evaluation.reading import read_labelled, read_prompts
from guardrail.evaluation.shadow import read_labels as read_shadow_labels
from guardrail.extract.author.answer import read_definition
from guardrail.extract.judges.labels import read_labels
from guardrail.extract.layers.files import load_sweep
from guardrail.files.json_text import decoded
from guardrail.traits import load_definition


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


def small_calibration(folder):
    """One trait at one layer, with replies."""
    data = json.loads((folder / "calibration.json").read_text())
    for table in (data["probes"], data["steering"]):
        table["evil"] = {"2": table["evil"]["2"]}
        del table["sycophancy"], table["hallucination"]
    one = {"mean": 1.0, "sd": 2.0, "turn_mean": 1.0, "turn_sd": 2.0}
    extremes = {"mean 16": data["probes"]["evil"]["2"]}
    return data | {"replies": {"evil": {"2": one | {"highest": extremes, "lowest": extremes}}}}


@pytest.mark.slow
def test_no_calibration_ends_in_a_traceback(folder):
    rules = [
        rule(id="a", threshold={"fpr": 0.01}),
        rule(id="b", action={"steer": {"operator": "cap", "at": {"percentile": 75}}}),
        rule(id="c", stage="response", threshold={"percentile": 99}),
        rule(id="d", conversation={"statistic": "cusum"}, threshold=None),
    ]
    path = folder / "hostile.json"
    for text in variants(small_calibration(folder), 4):
        path.write_text(text)
        with ours(text[:1000]):
            loaded(folder, *rules, calibration=str(path))


LINES = [
    {"messages": [{"role": "user", "content": "a"}], "tags": ["web"], "conversation": "c"},
    {"prompt": "a", "trait": "evil", "expression": {"evil": [1.0]}, "labels": {"evil": 1}, "split": "test"},
    {"question": "q", "answer": "a", "trait": "evil", "label": True, "score": 1.0},
    {"question": "q", "choices": ["a", "b"], "answer": 0},
    {"id": "x", "label": True, "trait": "evil"},
]
READERS = {
    "prompts": from_json_lines,
    "labelled": lambda path: read_labelled(path, ["evil"]),
    "probes": read_prompts,
    "labels": read_labels,
    "questions": read_questions,
    "shadow": read_shadow_labels,
    "fingerprint": read_fingerprint,
    "sweep": lambda path: load_sweep(path, "evil"),
    "calibration": Calibration.load,
    "trait": load_definition,
}
DOCUMENTS = [
    {name: getattr(FINGERPRINT, name) for name in FINGERPRINT.__slots__},
    [{"position": -1, "layer": 2, "refusal_score": 1.0, "steering_score": 1.0, "kl_div_score": 0.1}],
    {
        "instruction": [{"pos": "a", "neg": "b"}],
        "questions": ["c", "d"],
        "eval_prompt": "{question} {answer}",
    },
    {"name": "t", "positive": ["a"], "negative": ["b"], "extraction": ["c"], "evaluation": ["d"]},
]


@pytest.mark.parametrize("reader", READERS)
def test_no_json_ends_in_a_traceback(reader, tmp_path):
    path = tmp_path / "hostile.json"
    for text in [*VALUES, *(text for data in (*LINES, *DOCUMENTS) for text in variants(data, 4))]:
        path.write_text(text)
        with ours(text):
            READERS[reader](path)
    for content in damaged("\n".join(map(json.dumps, LINES)).encode(), 60):
        path.write_bytes(content)
        with ours(content):
            READERS[reader](path)


@pytest.mark.parametrize("name", ["nowhere.json", ".", "a\0b", "\ud800"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_an_error_too(reader, tmp_path, name):
    with ours(name):
        READERS[reader](tmp_path / name)


def test_an_author_may_answer_anything():
    good = {"instructions": [{"positive": "a", "negative": "b"}], "questions": ["c"], "rubric": "d"}
    for text in [*VALUES, *variants(good)]:
        with ours(text):
            read_definition(text, "evil", "bad")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DEEP, "nested too deeply"),
        ("[" * 51, "nested too deeply"),
        ("1" * 20, "a whole number of 20 digits is too long"),
        ('"\\ud800"', "not valid Unicode"),
        ('{"a":\n}', r"not JSON: Expecting value \(line 2, column 1\)"),
        ("\x00", "not JSON"),
    ],
)
def test_what_no_json_may_hold(text, said):
    with pytest.raises(ValueError, match=said):
        decoded(text.encode())


def test_brackets_in_text_do_not_count_as_depth():
    text = "[" * 100 + '"\\'
    assert decoded(json.dumps([text]).encode()) == [text]
    assert decoded(b"[" * 50 + b"]" * 50)


@pytest.mark.parametrize(("text", "values"), [("[1, 2, [], {}]", 6), ('{"a,b": ",[{"}', 1), ('"x"', 0)])
def test_how_many_values_there_may_be(text, values):
    assert decoded(text.encode(), most=values) == json.loads(text)
    if values:
        with pytest.raises(ValueError, match=f"more than {values - 1} values"):
            decoded(text.encode(), most=values - 1)


def test_a_calibration_names_its_first_problems_and_counts_the_rest(tmp_path, folder):
    data = small_calibration(folder)
    data["probes"]["evil"]["2"]["low"] = ["x"] * 10_000
    (tmp_path / "c.json").write_text(json.dumps(data))
    with pytest.raises(CalibrationError) as caught:
        Calibration.load(tmp_path / "c.json")
    assert "`probes.evil.2.low.0`: input should be a valid number" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).endswith(" more")
