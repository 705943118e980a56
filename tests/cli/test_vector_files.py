"""`guardrail vectors import | export` on the built-in vectors."""

import json
from dataclasses import replace

import pytest

from guardrail import demo
from guardrail.cli import run
from guardrail.testing import hand_made_vectors, tiny_fingerprint
from guardrail.vectors.values import TraitVectors

BUILT_IN = TraitVectors.load(demo.VECTORS)
TRAIT = next(iter(BUILT_IN))


@pytest.mark.parametrize("suffix", [".pt", ".gguf", ".svec"])
def test_a_trait_goes_out_and_comes_back(tmp_path, capsys, suffix):
    out, back = tmp_path / f"v{suffix}", tmp_path / "back.safetensors"
    assert run(["vectors", "export", "demo", "--trait", TRAIT, "--out", str(out)]) == 0
    assert "Not in it:" in capsys.readouterr().out
    assert run(["vectors", "import", str(out), "--trait", TRAIT, "--out", str(back), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    again = TraitVectors.load(back)
    assert printed["sha256"] == again.sha256
    assert printed["provenance"]["imported"][TRAIT]["file"] == out.name
    assert again.provenance.fingerprint == BUILT_IN.provenance.fingerprint
    layer = again[TRAIT].layers - 1
    assert (again[TRAIT].steering[layer] == BUILT_IN[TRAIT].steering[layer]).all()


def test_an_export_without_a_trait_is_refused(tmp_path, capsys):
    assert run(["vectors", "export", "demo", "--out", str(tmp_path / "v.gguf")]) == 2
    assert "choose one of" in capsys.readouterr().err
    assert not (tmp_path / "v.gguf").exists()


def test_an_import_needs_a_trait_for_each_file_and_overwrites_nothing(tmp_path, capsys):
    out, back = tmp_path / "v.svec", tmp_path / "back.safetensors"
    assert run(["vectors", "export", "demo", "--trait", TRAIT, "--out", str(out)]) == 0
    twice = ["vectors", "import", str(out), str(out), "--out", str(back)]
    assert run([*twice, "--trait", "a"]) == 2
    assert "2 files and 1 traits" in capsys.readouterr().err
    assert run([*twice, "--trait", "a", "--trait", "a"]) == 2
    assert "named twice" in capsys.readouterr().err
    assert run([*twice, "--trait", "a", "--trait", "b"]) == 0
    assert list(TraitVectors.load(back)) == ["a", "b"]
    assert run([*twice, "--trait", "a", "--trait", "c"]) == 2
    assert "exists; nothing was written" in capsys.readouterr().err
    assert run([*twice, "--trait", "a", "--trait", "c", "--force"]) == 0
    assert list(TraitVectors.load(back)) == ["a", "c"]


def test_a_fingerprint_stands_in_for_the_model(tmp_path, capsys):
    out, back = tmp_path / "v.svec", tmp_path / "back.safetensors"
    assert run(["vectors", "export", "demo", "--trait", TRAIT, "--out", str(out)]) == 0
    arguments = ["vectors", "import", str(out), "--trait", "a", "--out", str(back)]
    assert run([*arguments, "--model", "no/such-model", "--fingerprint", str(demo.FINGERPRINT)]) == 0
    assert TraitVectors.load(back).provenance.fingerprint == BUILT_IN.provenance.fingerprint


def test_vectors_of_another_model_than_the_built_in_one_say_what_to_name(tmp_path, capsys):
    path = tmp_path / "v.safetensors"
    hand_made_vectors().save(path)
    assert run(["vectors", "project", "hi", "--vectors", str(path)]) == 2
    told = "4 layers x 32, this model has 8 x 160, the built-in `demo`; name yours with --model"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("traits", [("one",), tuple("trait-number-" + c for c in "abcdefghij")])
def test_tables_of_many_layers_and_traits_stay_within_100_columns(tmp_path, capsys, traits):
    path = tmp_path / "v.safetensors"
    hand_made_vectors(traits, tiny_fingerprint(layers=30)).save(path)
    assert run(["vectors", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    heads = [line.split()[2:] for line in shown.splitlines() if line.startswith("trait  ")]
    assert [layer for head in heads for layer in head] == [str(layer) for layer in range(31)]
    assert ("cosine" in shown) == (len(traits) > 1)
    assert "e-" not in shown
    assert "pairs kept" not in shown


def test_vectors_show_what_they_rest_on_and_warn_of_shaky_ones(tmp_path, capsys):
    source = BUILT_IN.provenance.traits[TRAIT]
    shaky = replace(source.stability, split_half=(0.2,) * len(source.stability.split_half))
    traits = {**BUILT_IN.provenance.traits, TRAIT: replace(source, stability=shaky)}
    TraitVectors(BUILT_IN.vectors, replace(BUILT_IN.provenance, traits=traits)).save(
        tmp_path / "v.safetensors"
    )
    assert run(["vectors", "show", str(tmp_path / "v.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert f"warning: {TRAIT}: at layer {BUILT_IN[TRAIT].layer} the directions of two halves" in shown
    assert shown.count("warning:") == 1
    assert "pairs kept" in shown
    assert run(["vectors", "show"]) == 0
    assert "warning:" not in capsys.readouterr().out
