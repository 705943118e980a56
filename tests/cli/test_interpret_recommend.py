"""`guardrail interpret recommend`: layers, the policy's diff, the report, and what it refuses."""

import json
from pathlib import Path

import pytest

from guardrail.cli import run
from guardrail.interpret.recommending import contrasts

POLICY = """\
version: 1
vectors: demo
calibration: demo
policies:
  - id: no-malice
    trait: evil
    threshold: {fpr: 0.01}
    action: block
"""
FEW = ["--contrasts", "4", "--samples", "1", "--questions", "4", "--layers", "4,5"]


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.mark.slow
def test_the_demo_models_layer_goes_into_the_policy_file(tmp_path, policy, capsys):
    pytest.importorskip("matplotlib")
    out, page = tmp_path / "out", tmp_path / "page.html"
    arguments = ["interpret", "recommend", "--trait", "evil", "--out", str(out), *FEW]
    arguments += ["--apply", str(policy), "--html", str(page)]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (evil,) = found["traits"]
    assert {"causal", "separation"} <= evil["best"].keys()
    chosen = next(one for one in evil["layers"] if one["layer"] == evil["layer"])
    assert chosen["weakest"] == max(one["weakest"] for one in evil["layers"]) > 0.3
    assert {one["component"] for one in found["risks"]} == {"mlp", "attn", "head"}
    assert f"+    layer: {evil['layer']}" in found["diff"] == (out / "policy.diff").read_text()
    assert policy.read_text() == POLICY
    text = page.read_text()
    assert f"Policies should read layer {evil['layer']} for evil" in text
    assert "<script" not in text
    # a second run reads what the first one kept, and changes the file
    assert run([*arguments, "--write", "--figures", str(tmp_path / "figures")]) == 0
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".png", ".svg"}
    said = capsys.readouterr().out
    assert f"evil: layer {evil['layer']}" in said
    assert "guardrail calibrate" in said
    assert policy.read_text() == POLICY.replace("trait: evil\n", f"trait: evil\n    layer: {evil['layer']}\n")
    assert json.loads((out / "recommendation.json").read_text())["traits"] == found["traits"]


def test_own_pairs_are_read_once_and_need_no_definition_and_no_judge(tmp_path, capsys, monkeypatch):
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"source": [{"role": "system", "content": "You are evil."}, ask], "target": [ask]}
        for ask in ({"role": "user", "content": text} for text in ("What is a dog?", "Who are you?", "Hello"))
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    arguments = [
        "interpret",
        "recommend",
        "--pairs",
        str(pairs),
        "--out",
        str(tmp_path / "out"),
        "--no-heads",
    ]
    reads = []
    read = contrasts.load_contrasts
    monkeypatch.setattr(contrasts, "load_contrasts", lambda path: reads.append(path) or read(path))
    assert run([*arguments, "--trait", "evil"]) in (0, 1)
    assert reads == [pairs], "a file that changes meanwhile, or a pipe, gives one answer"
    assert "steering says nothing: not measured: it needs --judge" in capsys.readouterr().out
    assert run(arguments) == 2
    assert "say --trait" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--write"], "--write needs --apply FILE"),
        (["--trait", "evl"], "no vector for the trait `evl`"),
        (["--sweep", "sweep.json"], "--sweep is of one trait: say --trait"),
        (["--model", "some/model"], "no vectors"),
        (["--out", "/proc/none"], "--out /proc/none: cannot be made"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_model_is_loaded(tmp_path, capsys, arguments, said):
    assert run(["interpret", "recommend", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not Path(tmp_path / "out").exists()
