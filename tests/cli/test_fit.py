"""`guardrail vectors fit`, and the way from labelled prompts to an enforced policy, on the built-in model."""

import json

import pytest
from labelled import texts, write_lines

from guardrail.cli import run
from guardrail.vectors.values import TraitVectors

SOURCES = ("a", "b", "c", "d")


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
    assert "sources never seen" in printed.out
    assert f"--apply {policy}" in printed.out
    write_lines(benign, *(json.dumps(text) for text, harm in texts(300, seed=1) if not harm))
    made = tmp_path / "calibration.json"
    calibrate = ["calibrate", "--benign", str(benign), "--apply", str(policy), "--set-calibration", "--write"]
    arguments = ["--fpr", "0.02", "--conversations", "0", "--out", str(made), "--force"]
    assert run([*calibrate, *arguments]) == 0
    capsys.readouterr()
    harmful, harmless = ([t for t, harm in texts(40, seed=2) if harm is side] for side in (True, False))
    blocked = [run(["check", "--policies", str(policy), "--json", *side]) for side in (harmful, harmless)]
    actions = [json.loads(row)["action"] for row in capsys.readouterr().out.splitlines()]
    assert blocked[0] == 1
    assert actions[:20].count("block") > actions[20:].count("block")


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
    assert "candidates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--method", "pca"], "`pca` does not fit labelled prompts"),
        (["--positions", "lsat"], "no position `lsat`; did you mean `last`?"),
        (["--layers", "4-99"], "--layers 4-99: the model has the layers 1 to"),
        (["--layers", "all"], "--layers is such as 8-24 or 4,8,12, not `all`"),
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
