"""`guardrail vectors fit`, and the way from labelled prompts to an enforced policy, on the built-in model."""

import json

import pytest
from labelled import texts, write_lines

from guardrail.cli import run
from guardrail.cli.calibrate.benign import read_benign
from guardrail.extract.fit import validation
from guardrail.vectors.values import TraitVectors

SOURCES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(validation, "RESAMPLES", 20)


def line(text, harm, source, **more):
    return json.dumps({"prompt": text, "labels": {"harm": int(harm)}, "source": source, **more})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    lines = [line(text, harm, SOURCES[i % 4]) for i, (text, harm) in enumerate(texts(120))]
    return write_lines(tmp_path_factory.mktemp("data") / "labelled.jsonl", *lines)


def fit(data, out, *more):
    return run(["vectors", "fit", "--data", str(data), "--out", str(out), *map(str, more)])


def test_from_labelled_prompts_to_a_block(tmp_path, capsys, data):
    names = ("harm.safetensors", "policies/harm.yaml", "benign.jsonl")
    out, policy, benign = (tmp_path / name for name in names)
    policy.parent.mkdir()
    what = ("--method", "lda", "--positions", "last,user_mean")
    assert fit(data, out, "--policy", policy, "--fpr", 0.02, *what) == 0
    assert "vectors: ../harm.safetensors\n" in policy.read_text()
    printed = capsys.readouterr()
    assert "120 prompts" in printed.err
    assert "unseen sources" in printed.out
    assert "sources whose prompts all have one label, which is usual: a, c, b, d" in printed.out
    assert "% of the prompts that show it (checked on unseen sources)" in printed.out
    command = next(line.strip() for line in printed.out.splitlines() if "guardrail calibrate" in line)
    assert f"# {command}\n" in policy.read_text()
    assert f"--apply {policy}" in printed.out
    write_lines(benign, *(json.dumps(text) for text, harm in texts(300, seed=1) if not harm))
    write_lines(benign, *benign.read_text().splitlines(), *(json.dumps(text) for text, _ in texts(120)[1::2]))
    made = tmp_path / "calibration.json"
    calibrate = ["calibrate", "--benign", str(benign), "--apply", str(policy), "--set-calibration", "--write"]
    arguments = ["--fpr", "0.02", "--conversations", "0", "--out", str(made), "--force"]
    assert run([*calibrate, *arguments]) == 0
    assert "fitted on 60 of the 210 prompts" in capsys.readouterr().err
    fresh = texts(40, seed=2)
    assert run(["check", "--policies", str(policy), "--json", *(text for text, _ in fresh)]) == 1
    actions = [json.loads(row)["action"] for row in capsys.readouterr().out.splitlines()]
    assert actions[::2].count("block") > 10
    assert actions[1::2].count("block") < 3


def test_a_second_fit_reads_nothing_again(tmp_path, capsys, data):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert fit(data, one, "--method", "lda", "--max-sites", 1, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    chosen, *_ = told["provenance"]["fits"]["harm"]["candidates"]
    assert chosen["method"] == "lda"
    assert len(chosen["places"]) == 1
    assert fit(data, two, "--method", "difference", "--layers", "2-3") == 0
    assert "read before" in capsys.readouterr().err
    made = TraitVectors.load(two)
    layers = {layer for c in made.provenance.fits["harm"].candidates for layer, _ in c.places}
    assert layers == {2, 3}
    assert run(["vectors", "show", str(two)]) == 0
    shown = capsys.readouterr().out
    assert "candidates" in shown
    assert "pairs kept" not in shown, "the evidence of extractions"
    assert fit(data, two, "--method", "difference", "--layers", "2", "--force") == 0
    assert TraitVectors.load(two).sha256 != made.sha256


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--method", "pca"], "`pca` does not fit labelled prompts"),
        (["--positions", "lsat"], "no position `lsat`; did you mean `last`?"),
        (["--layers", "4-99"], "--layers 4-99: the model has the layers 1 to"),
        (["--layers", "all"], "--layers: `all` is not a list of layers such as 8,12,16-20"),
        (["--trait", "hram"], "no prompt is labelled for `hram`"),
        (["--fpr", "2"], "--fpr must be between 0 and 1"),
    ],
)
def test_what_cannot_be_done_is_named_and_nothing_is_written(tmp_path, capsys, data, more, told):
    out = tmp_path / "harm.safetensors"
    assert fit(data, out, *more) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys, data):
    out, policy = tmp_path / "harm.safetensors", tmp_path / "harm.yaml"
    policy.write_text("mine")
    assert fit(data, out, "--policy", policy) == 2
    assert "harm.yaml exists" in capsys.readouterr().err
    out.write_text("mine")
    assert fit(data, out) == 2
    assert (out.read_text(), policy.read_text()) == ("mine", "mine")


def test_prompts_that_are_too_long_or_damaged_are_named_or_left_out(tmp_path, capsys, data):
    long, out = tmp_path / "long.jsonl", tmp_path / "harm.safetensors"
    write_lines(long, *data.read_text().splitlines(), line("river " * 20_000, True, "a"), "{")
    assert fit(long, out) == 2
    assert f"{long}:122: not JSON" in capsys.readouterr().err
    write_lines(long, *long.read_text().splitlines()[:-1])
    assert fit(long, out, "--method", "difference") == 2
    assert f"{long}:121: the prompt has" in capsys.readouterr().err
    assert not out.exists()
    assert fit(long, out, "--method", "difference", "--skip-invalid") == 0
    assert "left out 1 prompts" in capsys.readouterr().err
    assert TraitVectors.load(out).provenance.traits["harm"].positive == 60


def test_harmless_rows_of_a_labelled_file_are_calibrated_on_and_harmful_ones_named(tmp_path):
    path = tmp_path / "x.jsonl"
    turns = '{"messages": [{"role": "user", "content": "two"}], "labels": {"harm": 0}, "source": "s"}'
    write_lines(path, line("one", False, "s", category="k"), turns, line("three", True, "s"), '"four"')
    found = read_benign(path)
    assert [content for _, content in found.prompts] == ["one", [{"role": "user", "content": "two"}], "four"]
    assert found.problems == [f"{path}:3: labelled `harm`: a calibration takes harmless prompts only"]


def test_prompts_set_aside_are_written_for_a_calibration(tmp_path, capsys):
    data, benign = tmp_path / "labelled.jsonl", tmp_path / "harmless.jsonl"
    write_lines(data, *(line(t, harm, SOURCES[i % 4]) for i, (t, harm) in enumerate(texts(520))))
    what = ("--method", "difference", "--positions", "last", "--layers", "3", "--max-sites", 1)
    out = tmp_path / "harm.safetensors"
    assert fit(data, out, "--benign-out", benign, "--policy", tmp_path / "harm.yaml", *what) == 0
    told = capsys.readouterr()
    assert f"--benign {benign}" in told.out
    assert "with 100 harmless prompts to calibrate on, a threshold at 1 % is beyond all of them" in told.err
    assert "add 413 harmless prompts" in told.err
    assert len(TraitVectors.load(out).provenance.fits["harm"].positives) == 260
    assert len(benign.read_text().splitlines()) == 125
    assert TraitVectors.load(out).provenance.traits["harm"].negative <= 135
    assert len(read_benign(benign).prompts) == 125
