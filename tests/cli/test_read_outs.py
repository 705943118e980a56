"""Vectors that read means and sums, through every verb that reads prompts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from calibrating import calibrate, copied, inputs, loaded, vectors

from guardrail.calibration.values import Calibration
from guardrail.cli import run
from guardrail.evaluation.readout import Placed
from guardrail.extract.subject import Subject
from guardrail.types import Message, ProbeSite
from guardrail.vectors.values import TraitVectors

POSITIONS = ("last", "prompt_mean", "user_mean")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files in which `evil` reads a sum at its layer and `humor` the user's text, and their calibration."""
    made = copied(inputs(tmp_path_factory.mktemp("made")), tmp_path_factory.mktemp("read-outs"))
    given = TraitVectors.load(made / "vectors.safetensors")
    evil, humor = given["evil"], given["humor"]
    sites = tuple(
        ProbeSite(
            layer=layer, position=position, weights=evil.probe[layer], normalised=position == "user_mean"
        )
        for layer, position in ((1, "prompt_mean"), (2, "last"), (2, "user_mean"))
    )
    kinds = {
        "evil": replace(evil, sites=sites),
        "humor": replace(humor, position="user_mean", normalised=True),
    }
    TraitVectors(kinds, given.provenance).save(made / "vectors.safetensors")
    assert calibrate(made, *vectors(made), "--fpr", "0.05", "--held-out", "0") == 0
    return made


@pytest.fixture(scope="module")
def benign(folder):
    return [json.loads(line) for line in (folder / "benign.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def scores(folder, benign):
    """What the bare model's states give, [prompts] by trait."""
    read = Placed(Subject(*loaded(folder)).read([[Message("user", text)] for text in benign], POSITIONS))
    given, known = (
        TraitVectors.load(folder / "vectors.safetensors"),
        Calibration.load(folder / "calibration.json"),
    )
    return {
        trait: [known.probes[trait][2].standardise(p) for p in vector.probe_at(2).projection(read).tolist()]
        for trait, vector in given.items()
    }


def answers(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_calibrated_scores_have_mean_0_and_standard_deviation_1(scores):
    for found in scores.values():
        assert np.mean(found) == pytest.approx(0, abs=1e-3)
        assert np.std(found, ddof=1) == pytest.approx(1, abs=1e-3)


def test_check_scores_the_prompts_of_the_calibration_as_it_did_and_drift_sees_none(
    folder, benign, scores, capsys
):
    given = ["--model", str(folder / "model"), "--policies", str(folder / "policy.yaml")]
    run(["check", *given, "--input", str(folder / "benign.jsonl"), "--json"])
    found = answers(capsys)
    for i, trait in enumerate(("evil", "humor")):
        read = [answer["scores"][i]["score"] for answer in found]
        assert read == pytest.approx(scores[trait], rel=1e-3, abs=2e-3)
    blocked = sum(answer["scores"][0]["fired"] for answer in found)
    assert blocked <= 0.05 * len(benign)
    files = ["--audit", str(folder / "audit.sqlite"), "--calibration", str(folder / "calibration.json")]
    assert run(["calibrate", "drift", *files, "--json"]) == 0
    (report,) = answers(capsys)
    assert (report["records"], report["drifted"]) == (len(benign), False)


def test_evaluate_measures_what_is_read(folder, benign, scores, capsys):
    middle = np.median(scores["evil"])
    rows = [
        {"prompt": text, "trait": "evil" if score > middle else None}
        for text, score in zip(benign, scores["evil"], strict=True)
    ]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--model", str(folder / "model"), "--policies", str(folder / "policy.yaml")]
    assert run(["evaluate", *given, "--data", str(folder / "labelled.jsonl"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["traits"]["evil"]["auroc"]["value"] == 1
    fired = [score >= threshold(folder) for score in scores["evil"] if score > middle]
    assert result["detectors"]["no-malice"]["tpr"]["value"] == pytest.approx(np.mean(fired))


def threshold(folder):
    benign = Calibration.load(folder / "calibration.json").probes["evil"][2]
    return benign.standardise(benign.conformal(0.05))


def test_project_shows_the_scores_that_policies_compare(folder, benign, scores, capsys):
    given = ["--model", str(folder / "model"), "--policies", str(folder / "policy.yaml")]
    assert run(["vectors", "project", *given, benign[0], "--json"]) == 0
    (shown,) = answers(capsys)
    for trait, found in scores.items():
        assert shown["scores"][trait][1] == pytest.approx(found[0], rel=1e-3, abs=1e-3)


def test_prompts_without_a_users_text_are_named_with_their_line(folder, capsys):
    rows = [{"messages": [{"role": "system", "content": "only rules"}]}, *(f"hello {n}" for n in range(140))]
    (folder / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert calibrate(folder, *vectors(folder), "--force", benign="odd.jsonl") == 2
    assert "odd.jsonl:1: there is no user turn" in capsys.readouterr().err
