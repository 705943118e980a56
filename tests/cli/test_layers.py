"""`guardrail vectors layers`: from a sweep file without a model, and on the built-in one."""

import json
from dataclasses import replace

import pytest
import typer

from guardrail import demo
from guardrail.cli import run
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.vectors.layers import _finish
from guardrail.cli.vectors.options import Selector
from guardrail.extract.layers.files import load_sweep
from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.traits import dump_definition, load_definition
from guardrail.vectors.values import TraitVectors

BUILT_IN = TraitVectors.load(demo.VECTORS)
TRAIT = next(iter(BUILT_IN))
LAYERS = BUILT_IN[TRAIT].layers
CHOSEN = next(layer for layer in range(1, LAYERS) if layer != BUILT_IN[TRAIT].layer)


def candidate(layer):
    """The chosen layer's trait score is the highest of the coherent ones."""
    return Candidate(layer=layer, trait=80.0 if layer == CHOSEN else 40.0, coherence=90.0)


@pytest.fixture
def sweep(tmp_path):
    found = [candidate(layer) for layer in range(1, LAYERS)]
    found.append(Candidate(layer=LAYERS, trait=99.0, coherence=10.0))
    Sweep(trait=TRAIT, layers=LAYERS, candidates=tuple(found)).save(tmp_path / "sweep.json")
    return tmp_path / "sweep.json"


def choose(out, *arguments):
    return run(["vectors", "layers", "--out", str(out), *map(str, arguments)])


def test_a_sweep_file_needs_no_model(tmp_path, capsys, sweep):
    out = tmp_path / "v.safetensors"
    assert choose(out, "--sweep", sweep, "--trait", TRAIT, "--model", "no/such-model") == 0
    printed = capsys.readouterr().out
    assert f"{TRAIT}: layer {CHOSEN} by steering: highest trait score" in printed
    made = TraitVectors.load(out)
    assert made[TRAIT].layer == CHOSEN
    assert made.provenance.layer_choices[TRAIT].sweep_sha256 == load_sweep(sweep, TRAIT).sha256
    assert run(["vectors", "show", str(out)]) == 0
    assert f"{TRAIT}: layer {CHOSEN} by steering" in capsys.readouterr().out


def test_a_sweep_file_needs_no_vector_file_either(tmp_path, capsys, sweep):
    assert run(["vectors", "layers", "--sweep", str(sweep)]) == 0
    assert f"{TRAIT}: layer {CHOSEN} by steering" in capsys.readouterr().out
    assert run(["vectors", "layers", "--sweep", str(sweep), "--vectors", "demo", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["out"], told["choices"][TRAIT]["layer"]) == (None, CHOSEN)
    assert run(["vectors", "layers", "--sweep", str(sweep), "--trait", "refusal"]) == 2
    assert f"a sweep of '{TRAIT}', not of 'refusal'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_a_published_sweep_is_about_refusal(tmp_path, capsys):
    keys = ("position", "layer", "refusal_score", "steering_score", "kl_div_score")
    rows = [
        (-1, 0, 9, 9, 0),
        (-1, 1, -3, 2, 0.05),
        (-2, 1, -5, 1, 0.02),
        (-1, 2, -9, 3, 0.4),
        (-1, 9, 0, 0, 0),
    ]
    path = tmp_path / "direction_evaluations.json"
    path.write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
    assert run(["vectors", "layers", "--sweep", str(path), "--by", "refusal", "--json"]) == 0
    (choice,) = json.loads(capsys.readouterr().out)["choices"].items()
    assert (choice[0], choice[1]["layer"], choice[1]["position"]) == ("refusal", 1, -2)


def test_without_a_sweep_there_has_to_be_a_file_to_write(capsys):
    assert run(["vectors", "layers", "--by", "separation"]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_the_floor_can_be_moved_and_left_out(tmp_path, capsys, sweep):
    low, none = tmp_path / "low.safetensors", tmp_path / "none.safetensors"
    assert choose(low, "--sweep", sweep, "--trait", TRAIT, "--floor", 95) == 2
    assert f"{LAYERS} have coherence below 95" in capsys.readouterr().err
    assert not low.exists()
    assert choose(none, "--sweep", sweep, "--trait", TRAIT, "--no-floor", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["choices"][TRAIT]["layer"] == TraitVectors.load(none)[TRAIT].layer == LAYERS


def test_a_published_sweep_is_read_and_shows_positions(tmp_path, capsys):
    keys = ("position", "layer", "refusal_score", "steering_score", "kl_div_score")
    rows = [(p, n, -float(n == 1) - (p == -1), 1.0, 0.0) for p in (-2, -1) for n in range(LAYERS)]
    path = tmp_path / "direction_evaluations.json"
    path.write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
    out = tmp_path / "v.safetensors"
    assert choose(out, "--sweep", path, "--trait", TRAIT, "--by", "refusal") == 0
    assert "position" in capsys.readouterr().out
    choice = TraitVectors.load(out).provenance.layer_choices[TRAIT]
    assert (choice.layer, choice.position) == (1, -1)


def test_what_does_not_fit_is_refused(tmp_path, capsys, sweep):
    out = tmp_path / "v.safetensors"
    assert choose(out, "--sweep", sweep, "--trait", "nothing") == 2
    assert "no vector for the trait `nothing`" in capsys.readouterr().err
    assert choose(out, "--sweep", sweep) == 2
    assert "say --trait" in capsys.readouterr().err
    Sweep(trait=TRAIT, layers=LAYERS + 1, candidates=(candidate(1),)).save(sweep)
    assert choose(out, "--sweep", sweep, "--trait", TRAIT) == 2
    assert f"the vectors have {LAYERS}" in capsys.readouterr().err
    out.write_text("")
    assert choose(out, "--sweep", sweep, "--trait", TRAIT) == 2
    assert "exists" in capsys.readouterr().err


def test_a_trait_without_a_choice_keeps_its_layer_and_is_named(tmp_path, capsys):
    other = next(name for name in BUILT_IN if name != TRAIT)
    dim = tuple(Candidate(layer=n, trait=90.0, coherence=10.0) for n in range(1, LAYERS + 1))
    good = tuple(candidate(n) for n in range(1, LAYERS + 1))
    sweeps = [
        Sweep(trait=TRAIT, layers=LAYERS, candidates=good),
        Sweep(trait=other, layers=LAYERS, candidates=dim),
    ]
    out, report = tmp_path / "v.safetensors", PageOption(html=tmp_path / "page.html")
    with pytest.raises(typer.Exit) as ended:
        _finish(BUILT_IN, sweeps, Selector.STEERING, 75.0, out, report, as_json=False)
    assert ended.value.exit_code == 1
    made = TraitVectors.load(out)
    assert (made[TRAIT].layer, made[other].layer) == (CHOSEN, BUILT_IN[other].layer)
    before, after = BUILT_IN.provenance.layer_choices, made.provenance.layer_choices
    assert {name for name in after if after[name] != before[name]} == {TRAIT}
    assert f"{other}: no layer can be chosen" in capsys.readouterr().err.replace("\n", " ")
    html = report.html.read_text()
    assert f"Chosen: layer {CHOSEN} for {TRAIT}. None could be chosen for {other}." in html
    assert "have coherence below 75" in html


def test_another_model_needs_a_judge(tmp_path, capsys):
    assert choose(tmp_path / "v.safetensors", "--trait", "evil", "--model", "some/model") == 2
    assert "no judge: give --judge" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_on_the_built_in_model_keeps_its_sweep(tmp_path, capsys):
    whole = load_definition(demo.TRAITS / f"{TRAIT}.yaml")
    few = replace(
        whole,
        instructions=whole.instructions[:1],
        extraction=whole.extraction[:3],
        evaluation=whole.evaluation[:3],
    )
    (tmp_path / "few.yaml").write_text(dump_definition(few))
    run_ = ("--trait", TRAIT, "--definition", tmp_path / "few.yaml", "--work", tmp_path / "sweeps")
    quick = ("--samples", 1, "--max-new-tokens", 24)
    report = tmp_path / "layers.html"
    assert choose(tmp_path / "a.safetensors", *run_, "--by", "separation", "--html", report) == 0
    assert f"{report}: written" in capsys.readouterr().out
    for text in ("The sample is small: 3 prompts on a side", "chosen", "<svg", "d&#39;"):
        assert text in report.read_text()
    assert choose(tmp_path / "b.safetensors", *run_, *quick, "--coefficient", 0, "--no-floor") == 2
    assert f"{LAYERS} do not raise the trait" in capsys.readouterr().err
    sweep = load_sweep(tmp_path / "sweeps" / TRAIT / "sweep.json", TRAIT)
    assert [c.layer for c in sweep.candidates] == list(range(1, LAYERS + 1))
    assert {c.trait for c in sweep.candidates} == {sweep.baseline.trait}, "coefficient 0 changes nothing"
    assert (sweep.judge, sweep.replies) == ("demo", 3)
    told = choose(
        tmp_path / "c.safetensors",
        *run_,
        *quick,
        "--layers",
        "2,4-5",
        "--questions",
        2,
        "--no-floor",
        "--work",
        tmp_path / "few",
    )
    text = capsys.readouterr().err
    assert told in (0, 2)
    assert "8 replies of at most 24 tokens, 16 requests to the judge: " in text
    sweep = load_sweep(tmp_path / "few" / TRAIT / "sweep.json", TRAIT)
    assert ([c.layer for c in sweep.candidates], sweep.replies) == ([2, 4, 5], 2)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("99", f"layer 99 cannot be tried; layers are 1 to {LAYERS}"),
        ("two", "--layers: `two` is not a list of layers such as 8,12,16-20"),
        ("5-2", "`5-2` is not a list of layers"),
        ("1,,2", "`1,,2` is not a list of layers"),
    ],
)
def test_layers_that_do_not_exist_are_refused(tmp_path, capsys, layers, said):
    assert choose(tmp_path / "v.safetensors", "--trait", TRAIT, "--by", "separation", "--layers", layers) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "v.safetensors").exists()
