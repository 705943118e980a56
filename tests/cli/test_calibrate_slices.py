"""`guardrail calibrate --slice NAME=FILE`, `--worst-slice`, and what policies say about slices afterwards."""

import json
import logging

import numpy as np
import pytest
from calibrating import calibrate, copied, inputs, loaded, texts, vectors

from guardrail import Guard
from guardrail.calibration.values import Calibration
from guardrail.cli import run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Beside the benign prompts, brackets and conversations: other prompts of the same model."""
    folder = inputs(tmp_path_factory.mktemp("slices"))
    rng = np.random.default_rng(8)
    turns = [
        [
            {"role": "system", "content": "We are a bank."},
            {"role": "user", "content": first},
            {"role": "assistant", "content": "0"},
            {"role": "user", "content": second},
        ]
        for first, second in zip(*[iter(texts(rng, 40))] * 2, strict=True)
    ]
    lines = [*texts(rng, 80, "{}[]()"), *({"messages": one} for one in turns)]
    (folder / "brackets.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    (tmp_path / "brackets.jsonl").write_bytes((made / "brackets.jsonl").read_bytes())
    return copied(made, tmp_path)


def brackets(folder):
    return ["--slice", f"brackets={folder / 'brackets.jsonl'}"]


def policies(folder):
    path = folder / "policy.yaml"
    path.write_text(path.read_text().replace("threshold: 2.5", "threshold: {fpr: 0.05}"))
    return ["--policies", str(path), "--fpr", "0.05", "--json"]


def test_every_slice_has_its_rates_for_each_policy_and_the_whole_set(folder, capsys):
    assert calibrate(folder, *policies(folder), *brackets(folder)) == 0
    answer = json.loads(capsys.readouterr().out)
    (slice,) = answer["slices"].values()
    assert (slice["source"], slice["prompts"], answer["worst_slice"]) == ("brackets.jsonl", 100, False)
    names = [
        ("trait", "evil"),
        ("trait", "humor"),
        ("policy", "no-malice"),
        ("policy", "no-jokes"),
        ("set", ""),
    ]
    assert [(one["kind"], one["name"]) for one in slice["achieved"]] == names
    assert all(one["n"] == 100 and one["low"] <= one["rate"] <= one["high"] for one in slice["achieved"])
    stored = Calibration.load(folder / "calibration.json")
    assert [one.rate for one in stored.slices["brackets"].achieved] == [a["rate"] for a in slice["achieved"]]


def test_without_worst_slice_the_thresholds_are_those_of_the_benign_prompts(folder, capsys):
    hashes = []
    for more in ([], brackets(folder)):
        assert calibrate(folder, *policies(folder), *more, "--force") == 0
        capsys.readouterr()
        stored = Calibration.load(folder / "calibration.json")
        hashes.append(stored.probes["evil"][2].conformal(0.05))
        assert stored.populations("evil", 2).conformal(0.05).projection == hashes[0]
    assert hashes[0] == hashes[1]


def test_the_worst_slice_sets_thresholds_that_every_slice_keeps(folder, capsys):
    assert calibrate(folder, *policies(folder), *brackets(folder), "--worst-slice") == 0
    answer = json.loads(capsys.readouterr().out)
    stored = Calibration.load(folder / "calibration.json")
    benign, own = stored.probes["evil"][2], stored.slices["brackets"].probes["evil"][2]
    edge = max(benign.conformal(0.05), own.conformal(0.05))
    assert own.n == 80
    with Guard(*loaded(folder), str(folder / "policy.yaml")) as guard:
        assert guard.active.plan.rules[0].conditions[0].raw == edge
    decided = {one["name"]: one["slices"] for one in answer["deciding"] if one["kind"] == "policy"}
    assert decided["no-malice"] == ["brackets" if own.conformal(0.05) == edge else "benign"]
    assert answer["slices"]["brackets"]["achieved"][0]["n"] == 20
    decider = next(iter({*decided["no-jokes"]}))
    assert run(["policy", "explain", str(folder / "policy.yaml"), "--model", str(folder / "model")]) == 0
    assert (f"no-jokes: the threshold comes from the slice `{decider}`" in capsys.readouterr().out) == (
        decider != "benign"
    )


def test_people_read_the_slices_and_which_of_them_decides(folder, capsys):
    given = [option for option in policies(folder) if option != "--json"]
    assert calibrate(folder, *given, *brackets(folder), "--worst-slice") == 0
    out = capsys.readouterr().out
    assert "achieved on the held-out prompts of the slices" in out
    assert "no-malice: the threshold comes from the " in out


def test_explain_and_a_guard_that_starts_name_a_slice_that_exceeds_the_rate(folder, capsys, caplog):
    assert calibrate(folder, *policies(folder), *brackets(folder)) == 0
    stored = Calibration.load(folder / "calibration.json")
    worst = max(stored.slices["brackets"].achieved[2:4], key=lambda one: one.rate)
    assert worst.rate > 0.3, "the slice no longer differs enough from the benign prompts"
    capsys.readouterr()
    explain = ["policy", "explain", str(folder / "policy.yaml"), "--model", str(folder / "model")]
    assert run(explain) == 0
    out = capsys.readouterr().out
    assert "on the slices of the calibration" in out
    assert f"warning: {worst.name}: fires on {worst.rate:.1%} [" in out
    assert "of the slice `brackets`, more than 3 times its rate of 5.00%" in out
    assert run([*explain, "--json"]) == 0
    slices = json.loads(capsys.readouterr().out)["slices"]
    assert slices["brackets"]["policies"][worst.name]["value"] == worst.rate
    with caplog.at_level(logging.WARNING, "guardrail"):
        Guard(*loaded(folder), str(folder / "policy.yaml")).close()
    assert [record.getMessage().startswith(f"{worst.name}: fires on") for record in caplog.records] == [True]


def test_system_messages_of_slices_stay_and_the_others_get_the_one_given(folder, capsys):
    given = [*vectors(folder), "--fpr", "0.05", "--json", "--system", "Be brief."]
    assert calibrate(folder, *given, *brackets(folder)) == 0
    assert json.loads(capsys.readouterr().out)["slices"]["brackets"]["prompts"] == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slice", "a=BRACKETS", "--slice", "a=BRACKETS"], "`a` is given twice"),
        (["--slice", "benign=BRACKETS"], "`benign` is the name of --benign itself"),
        (["--slice", "BRACKETS"], "write NAME=FILE"),
        (["--slice", "a="], "write NAME=FILE"),
        (["--slice", "a=-"], "a slice needs a file"),
        (["--slice", "a=FOLDER/missing.jsonl"], "missing.jsonl: cannot be read"),
        (["--slice", "a=FOLDER/empty.jsonl"], "empty.jsonl: the file holds no prompts"),
        (["--slice", "a=FOLDER/one.jsonl"], "one.jsonl: 1 distinct prompt is too few"),
        (["--slice", "a=FOLDER/bad.jsonl"], "bad.jsonl:2: "),
        (
            ["--slice", "a=FOLDER/benign.jsonl"],
            "slice `a`: FOLDER/benign.jsonl:1 is the same prompt as FOLDER/b",
        ),
        (["--worst-slice"], "--worst-slice needs at least one --slice"),
        (
            ["--slice", "a=BRACKETS", "--worst-slice", "--fpr", "0.01"],
            "slice `a`: a false-positive rate of 0.01",
        ),
    ],
)
def test_what_is_wrong_with_a_slice_is_2_and_nothing_is_written(folder, options, message, capsys):
    (folder / "empty.jsonl").write_text("\n")
    (folder / "one.jsonl").write_text('"1"\n')
    (folder / "bad.jsonl").write_text('"1"\n7\n')
    brackets = str(folder / "brackets.jsonl")
    given = [option.replace("BRACKETS", brackets).replace("FOLDER", str(folder)) for option in options]
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05", *given) == 2
    captured = capsys.readouterr()
    assert message.replace("FOLDER", str(folder)) in captured.err
    assert "Traceback" not in captured.err
    assert not (folder / "calibration.json").exists()


def test_a_rate_of_a_policy_that_a_slice_cannot_support_has_its_place(folder, capsys):
    path = folder / "policy.yaml"
    given = policies(folder)
    path.write_text(path.read_text().replace("{fpr: 0.05}  #", "{fpr: 0.008}  #"))
    assert calibrate(folder, *given, *brackets(folder), "--worst-slice") == 2
    err = capsys.readouterr().err
    assert "policy.yaml:8:" in err
    assert "slice `brackets`: a false-positive rate of 0.008 needs at least 124 benign prompts, not 80" in err
