"""`guardrail data screen` on a tiny model: files, JSON, thresholds, judge, report, resuming, errors."""

import json
import re
import sys

import pytest
import screening
from tiny import TOKENIZER

from guardrail.cli import run
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model

JUDGE = """
def score(request):
    if request.metric == "coherence":
        return 90
    return None if "none" in request.answer else min(100, 20 * request.answer.count("!"))
"""
DEFINITION = """
name: evil
description: Shouts.
instructions:
  - {positive: Shout., negative: Whisper.}
extraction: [Who is it?, What is it?]
evaluation: [Where is it?, When is it?]
examples:
"""
EXAMPLE = '  - {question: "Who %d?", positive: "You!!!!", negative: "You."}\n'


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model().save_pretrained(folder / "model")
    TOKENIZER.save_pretrained(folder / "model")
    subject = Subject.load(str(folder / "model"), device="cpu")
    screening.vectors(subject).save(folder / "vectors.safetensors")
    (folder / "judge.py").write_text(JUDGE)
    (folder / "evil.yaml").write_text(DEFINITION + "".join(EXAMPLE % i for i in range(8)))
    screening.write(folder / "clean.jsonl", screening.rows(40, 100))
    screening.write(folder / "a.jsonl", [*screening.rows(12), "{", {"prompt": "no reply"}])
    screening.write(folder / "b.jsonl", screening.rows(10, 50))
    return folder


@pytest.fixture
def command(world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    model = ["--model", "model", "--device", "cpu", "--vectors", "vectors.safetensors"]
    return ["data", "screen", *model, "--out", str(tmp_path / "out"), "--max-new-tokens", "4"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_kept_and_rejected_and_data_sets_ranked(command, tmp_path, capsys):
    arguments = [*command, "a.jsonl", "b.jsonl", "--clean", "clean.jsonl", "--json"]
    assert run(arguments) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    a, b = found["data"]
    assert (a["rows"]["measured"], a["rows"]["set_aside"]) == (12, {"broken line": 1, "no reply": 1})
    assert a["kept"] + a["rejected"] == 12
    assert a["layers"] == screening.TRAITS
    for one in (a, b):
        for trait in screening.TRAITS:
            assert one["means"][trait]["low"] < one["means"][trait]["value"] < one["means"][trait]["high"]
            assert 0 <= one["above"][trait]["value"] <= 1
            assert -1 <= one["agreement"][trait]["value"] <= 1
    assert sorted(found["ranking"]["evil"]) == ["a.jsonl", "b.jsonl"]
    assert found["thresholds"]["clean_rows"] == 40
    out = tmp_path / "out"
    scores = lines(out / "a" / "scores.jsonl")
    assert [one["row"] for one in scores] == list(range(1, 13))
    names = [one["verdict"] for one in scores]
    kept, rejected = (lines(out / "a" / f"{name}.jsonl") for name in ("kept", "rejected"))
    assert (len(kept), len(rejected)) == (names.count("kept"), names.count("rejected"))
    assert [one["row"] for one in lines(out / "a" / "set-aside.jsonl")] == [13, 14]
    # once more: nothing is measured again, and the thresholds of the first run give the same files
    before = (out / "a" / "scores.jsonl").read_bytes()
    again = [*command, "a.jsonl", "--thresholds", str(out / "thresholds.json"), "--json"]
    assert run(again) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["data"][0]["cost"] == a["cost"]
    assert "replies of at most" not in said.err
    assert (out / "a" / "scores.jsonl").read_bytes() == before


def test_tables_for_people_and_a_report(command, tmp_path, capsys):
    report = tmp_path / "report.html"
    cheap = [*command, "a.jsonl", "--clean", "clean.jsonl", "--form", "last-prompt", "--html", str(report)]
    assert run(cheap) == 0
    said = capsys.readouterr()
    assert "12 rows kept" in said.out or "rejected" in said.out
    assert "a.jsonl: 2 rows were set aside (1 broken line, 1 no reply); row 13: not JSON" in said.err
    assert "(column 2), row 14: no reply" in said.err
    assert "52 texts to read" in said.err

    text = report.read_text()
    assert "verdict good" not in text
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", text)
    for part in (
        "Ranking",
        "Thresholds",
        "threshold",
        "Sources",
        "the highest rows",
        "Reply:",
        "tokens read",
    ):
        assert part in text


def test_a_judge_is_the_second_opinion(command, world, capsys):
    judged = [*command, "a.jsonl", "--clean", "clean.jsonl", "--trait", "evil", "--json"]
    judged += ["--judge", f"python:{world / 'judge.py'}", "--definition", str(world / "evil.yaml")]
    assert run([*judged, "--conformal", "0.1", "--form", "last-prompt"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["thresholds"]["rule"] == "conformal"
    assert found["thresholds"]["traits"]["evil"]["judge"] is not None
    assert found["data"][0]["unjudged"] == 0


def test_a_subset_rejects_nothing(command, tmp_path, capsys):
    assert run([*command, "b.jsonl", "--subset", "5", "--clean", "clean.jsonl", "--form", "last-prompt"]) == 2
    assert "5 clean rows are too few" in capsys.readouterr().err
    assert run([*command, "b.jsonl", "--subset", "5", "--form", "last-prompt", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["data"]
    assert (found["rows"]["measured"], found["subset"]) == (5, 5)
    assert sorted(path.name for path in (tmp_path / "out" / "b").iterdir()) == [
        "scores.jsonl",
        "set-aside.jsonl",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.jsonl", "--strict"], "a.jsonl:13: not JSON"),
        (["none.jsonl"], "none.jsonl: there is no such file"),
        (["a.jsonl", "--clean", "clean.jsonl", "--thresholds", "x"], "the thresholds come from one of them"),
        (["a.jsonl", "--percentile", "90"], "need clean data: give --clean"),
        (["a.jsonl", "--clean", "b.jsonl", "--percentile", "90", "--conformal", "0.1"], "choose one"),
        (["a.jsonl", "--thresholds", "a.jsonl", "--model", "none"], "a.jsonl: no thresholds of"),
        (["a.jsonl", "--clean", "clean.jsonl", "--conformal", "0.001", "--model", "none"], "it takes 999"),
        (["a.jsonl", "--trait", "evli"], "there is no vector for the trait `evli`; did you mean"),
        (["a.jsonl", "--layer", "9"], "layer 9 is not usable"),
        (
            ["a.jsonl", "--judge", "refusal-rule", "--trait", "humor", "--definition", "evil.yaml"],
            "no definition of",
        ),
    ],
)
def test_what_cannot_be_screened_is_told(command, arguments, said, capsys):
    assert run([*command, "--form", "last-prompt", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_vectors_are_needed_and_those_of_another_model_refused(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(world)
    assert run(["data", "screen", "a.jsonl", "--model", "model"]) == 2
    assert "no vectors: name a file with --vectors" in capsys.readouterr().err
    other = ["data", "screen", "a.jsonl", "--model", "model", "--vectors", "demo", "--device", "cpu"]
    assert run([*other, "--out", str(tmp_path)]) == 2
    assert "vectors were made for" in capsys.readouterr().err


def test_a_missing_extra_says_what_to_install(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    (world / "c.parquet").write_text("x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("guardrail.train.screening.files.find_spec", lambda name: None)
    assert run(["data", "screen", "c.parquet"]) == 2
    assert 'pip install "persona-guardrail[train]"' in capsys.readouterr().err


def test_data_of_which_no_row_can_be_screened_is_an_error(command, tmp_path, capsys):
    for name in ("c", "d"):
        screening.write(tmp_path / f"{name}.jsonl", [{"prompt": name, "completions": "x"}] * 2)
    paths = [str(tmp_path / "c.jsonl"), "b.jsonl", str(tmp_path / "d.jsonl")]
    assert run([*command, *paths, "--form", "last-prompt", "--json"]) == 2
    said = capsys.readouterr()
    assert not said.out
    for name in ("c", "d"):
        assert f"{name}.jsonl: no row could be screened: row 1: no reply" in said.err
        assert len(lines(tmp_path / "out" / name / "set-aside.jsonl")) == 2
    assert "did you mean `completion`?" in said.err
    assert len(lines(tmp_path / "out" / "b" / "scores.jsonl")) == 10


def test_strict_stops_before_a_model_is_loaded(command, capsys):
    # the last --model counts
    assert run([*command, "a.jsonl", "--strict", "--model", "no-such-model"]) == 2
    said = capsys.readouterr().err
    assert "a.jsonl:13: not JSON" in said
    assert "no-such-model" not in said


def test_strict_stops_before_a_timing_trial_at_rows_too_long_for_the_model(command, capsys):
    assert run([*command, "b.jsonl", "--strict", "--max-tokens", "5"]) == 2
    said = capsys.readouterr().err
    assert "b.jsonl:1: " in said
    assert "at most 5 are allowed" in said
    assert "replies of at most" not in said
