"""`guardrail interpret patch`: the result, the report, and what it says of pairs that cannot be patched."""

import json

import pytest

from guardrail.cli import run
from guardrail.interpret.patching.builtin import demo_pairs


def write(path, lines):
    path.write_text(
        "".join(f"{line if isinstance(line, str) else line.model_dump_json()}\n" for line in lines)
    )
    return str(path)


@pytest.mark.slow
def test_the_demo_models_country_is_found_and_reported(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pairs, page = write(tmp_path / "pairs.jsonl", demo_pairs()[:1]), tmp_path / "page.html"
    arguments = ["interpret", "patch", pairs, "--out", str(tmp_path / "out"), "--sweep", "scopes"]
    arguments += ["--direction", "denoising"]
    drawn = tmp_path / "drawn"
    assert run([*arguments, "--html", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["pairs"]) == 1
    whole = [
        e for e in found["effects"] if e["patch"]["component"] == "resid" and e["patch"]["where"] == "all"
    ]
    assert len(whole) == found["layers"] + 1
    assert all(e["effect"]["value"] == pytest.approx(1, abs=1e-3) for e in whole)
    text = page.read_text()
    assert "residual stream: effect by layer" in text
    assert "<script" not in text
    assert run([*arguments, "--figures", str(drawn)]) == 0
    parts = ("mlp", "attention", "residual-stream")
    curves = {f"{part}-effect-by-layer-denoising" for part in parts}
    assert {path.stem for path in drawn.iterdir()} == curves
    assert len(list(drawn.iterdir())) == text.count("<figure>") * 2 == 6
    assert (drawn / "mlp-effect-by-layer-denoising.png").read_bytes().startswith(b"\x89PNG")
    assert "1 pairs patched, 0 left out" in capsys.readouterr().out


def test_a_persona_that_changes_no_answer_is_a_finding_with_its_reason(tmp_path, capsys):
    line = '{"prompt": "Is it {identity}? What sound does a dog make?", "source": "a", "target": "the"}'
    path = write(tmp_path / "pairs.jsonl", [line])
    code = run(["interpret", "patch", path, "--out", str(tmp_path / "out"), "--sweep", "scopes"])
    said = capsys.readouterr()
    assert code == 1
    assert "0 pairs patched, 1 left out" in said.out
    assert "the persona changes no answer" in said.out
    assert "no pair could be patched" in said.err


def test_without_pairs_for_another_model_it_says_what_to_give(tmp_path, capsys):
    assert run(["interpret", "patch", "--model", "gpt2", "--out", str(tmp_path)]) == 2
    assert "name a JSON Lines file of pairs" in capsys.readouterr().err
