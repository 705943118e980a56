"""`guardrail certify`: recordings, verdicts, the files it writes, and exit codes 0, 1 and 2."""

import json

import numpy as np
import pytest
from calibrating import calibrate, copied, inputs, texts, vectors

from guardrail.calibration.values import Calibration
from guardrail.certify.recording import Recording
from guardrail.cli import run
from guardrail.statistics import intervals

MODEL = ("--dtype", "float32")


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    """Intervals that are a little rougher, in a fifth of the time."""
    monkeypatch.setattr(intervals, "RESAMPLES", 200)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files with a calibration, and a recording of the configuration that it was made under."""
    folder = inputs(tmp_path_factory.mktemp("certify"))
    own = copied(folder, tmp_path_factory.mktemp("own"))
    rng = np.random.default_rng(5)
    for name, count in (("fresh", 380), ("attacks", 20)):
        lines = "".join(json.dumps(text) + "\n" for text in texts(rng, count))
        (own / f"{name}.jsonl").write_text(lines)
    assert calibrate(own, *vectors(own), "--fpr", "0.05", "--held-out", "0", "--conversations", "0") == 0
    assert certify(own, *MODEL, "--record", str(own / "full.json")) == 0
    return own


def certify(folder, *more, benign="fresh"):
    files = ["--model", str(folder / "model"), "--policies", str(folder / "policy.yaml")]
    prompts = ["--benign", str(folder / f"{benign}.jsonl"), "--input", str(folder / "attacks.jsonl")]
    return run(["certify", *files, *(prompts if "--recorded" not in more else ()), *more])


def recorded(folder, name, *more):
    files = ["--policies", str(folder / "policy.yaml"), "--recorded", str(folder / name)]
    return run(["certify", *files, "--against", str(folder / "full.json"), *more])


def changed(made, name, change):
    """A recording of the same prompts by something that scores otherwise."""
    content = json.loads((made / "full.json").read_text())
    content["configuration"]["engine"] = name
    for row in content["said"]:
        row["scores"] = [change(score) for score in row["scores"]]
        row["action"] = "block" if row["scores"][1] >= 2.5 else "allow"
    (made / f"{name}.json").write_text(json.dumps(content))
    return f"{name}.json"


def test_a_recording_has_the_configuration_and_no_text(made, capsys):
    found = Recording.load(made / "full.json")
    assert (found.configuration.dtype, found.configuration.engine) == ("float32", "transformers")
    assert (len(found.said), found.benign.sum()) == (400, 380)
    prompt = json.loads((made / "fresh.jsonl").read_text().splitlines()[0])
    assert prompt not in (made / "full.json").read_text()
    assert not (made / "audit.sqlite").exists(), "what is asked for is no traffic"


def test_the_same_configuration_passes_and_is_certified_anew(made, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = ("--against", str(made / "full.json"), "--out", str(out), "--max-age", "90", "--json")
    assert certify(made, *MODEL, *arguments, "--html", str(tmp_path / "r.html")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["reasons"], answer["differences"]) == ("PASS", [], [])
    assert answer["calibration"] == str(out)
    assert [one["policy"] for one in answer["rates"]] == ["no-malice", "no-jokes", ""]
    (certificate,) = Calibration.load(out).certificates
    assert (certificate.max_age_days, certificate.policies) == (90.0, ("no-malice", "no-jokes"))
    assert "Certificate: PASS" in (tmp_path / "r.html").read_text()


def test_half_precision_is_compared_live_with_a_recording(made, tmp_path, capsys):
    arguments = ("--against", str(made / "full.json"), "--out", str(tmp_path / "out.json"))
    code = certify(made, "--dtype", "bfloat16", *arguments)
    out = capsys.readouterr().out
    assert "candidate: transformers, bfloat16" in out
    verdict = "PASS" if code == 0 else "RECALIBRATE"
    assert f"\n{verdict}\n" in out
    assert f"{tmp_path / 'out.json'}: calibration written" in out


def test_another_scale_is_1_and_gives_the_calibration_to_use(made, tmp_path, capsys):
    name, out = changed(made, "other", lambda score: 2 * score + 1), tmp_path / "new.json"
    assert recorded(made, name, "--out", str(out), "--html", str(tmp_path / "r.html")) == 1
    said = capsys.readouterr().out
    assert "\nRECALIBRATE\n" in said
    assert "with new thresholds, on the 190 benign prompts left out" in said
    assert "EXCEEDED" in said
    made_anew = Calibration.load(out)
    assert [one.configuration.engine for one in made_anew.certificates] == ["other"]
    assert "With new thresholds" in (tmp_path / "r.html").read_text()


def test_another_order_of_prompts_fails_and_writes_nothing(made, tmp_path, capsys):
    out = tmp_path / "new.json"
    name = changed(made, "noise", lambda score: score + np.random.default_rng(int(1e6 * abs(score))).normal())
    assert recorded(made, name, "--out", str(out), "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["calibration"]) == ("FAIL", None)
    assert any("ranks prompts otherwise" in reason for reason in answer["reasons"])
    assert not out.exists()


def test_what_makes_no_sense_is_2_before_a_model_is_loaded(made, tmp_path, capsys):
    reference = ("--against", str(made / "full.json"))
    taken = tmp_path / "taken.json"
    taken.write_text((made / "calibration.json").read_text())
    (made / "few.jsonl").write_text('"hello"\n')
    new = ("--out", str(tmp_path / "new.json"))
    for arguments, said in (
        ((), "nothing to do: name --record FILE to write, or --against FILE"),
        (("--record", str(tmp_path / "no" / "r.json")), "there is no such folder"),
        ((*reference, "--out", str(taken)), "exists; choose another --out, or replace it with --force"),
        ((*reference, *new, "--html", str(tmp_path / "no" / "r.html")), "there is no such folder"),
        (("--against", str(made / "fresh.jsonl"), *new), "fresh.jsonl: not JSON"),
    ):
        assert certify(made, *arguments) == 2
        assert said in capsys.readouterr().err
    assert certify(made, *reference, *new, benign="few") == 2
    assert "1 distinct benign prompts are too few" in capsys.readouterr().err
    assert run(["certify", "--recorded", str(made / "full.json")]) == 2
    assert "--recorded FILE is compared with --against FILE" in capsys.readouterr().err
    assert recorded(made, "full.json", "--input", str(made / "fresh.jsonl")) == 2
    assert "--recorded holds its prompts" in capsys.readouterr().err


def test_a_reference_that_the_policies_are_not_for_is_refused_before_a_model_is_loaded(
    made, tmp_path, capsys
):
    content = json.loads((made / "full.json").read_text())
    content["fingerprint"]["layers"] += 1
    (tmp_path / "other.json").write_text(json.dumps(content))
    new = ["--against", str(tmp_path / "other.json"), "--out", str(tmp_path / "new.json")]
    assert certify(made, *new, "--model", "no/such-model") == 2
    assert "made for a model of" in capsys.readouterr().err


def test_slices_are_recorded_and_their_rates_compared_on_their_own(made, tmp_path, capsys):
    rng = np.random.default_rng(8)
    words = "".join(json.dumps(text) + "\n" for text in texts(rng, 30, "xyz "))
    (made / "words.jsonl").write_text(words)
    reference, slices = str(tmp_path / "slices.json"), ("--slice", f"words={made / 'words.jsonl'}")
    assert certify(made, *MODEL, *slices, "--record", reference) == 0
    capsys.readouterr()
    files = ["--policies", str(made / "policy.yaml"), "--recorded", reference, "--against", reference]
    assert run(["certify", *files, "--out", str(tmp_path / "out.json")]) == 0
    assert "no-malice on the slice `words`" in capsys.readouterr().out
    shared = ("--slice", f"again={made / 'fresh.jsonl'}", "--record", reference)
    assert certify(made, *shared) == 2
    said = capsys.readouterr().err
    assert "slice `again`:" in said
    assert "is the same prompt as" in said
    assert run(["certify", "--model", str(made / "model"), *shared]) == 2
    assert "--slice needs --benign FILE" in capsys.readouterr().err


def test_a_model_of_ones_own_needs_benign_prompts(made, capsys):
    files = ["--model", str(made / "model"), "--policies", str(made / "policy.yaml")]
    assert run(["certify", *files, "--record", str(made / "x.json")]) == 2
    assert "no benign prompts: name a file with --benign" in capsys.readouterr().err


def test_certified_policies_can_be_required(made, tmp_path, capsys):
    """What is to be certified may ask for certificates itself."""
    policy = made / "strict.yaml"
    policy.write_text(
        (made / "policy.yaml").read_text().replace("version: 1", "version: 1\nrequire_certified: true")
    )
    files = ["--policies", str(policy), "--recorded", str(made / "full.json")]
    out = tmp_path / "out.json"
    assert run(["certify", *files, "--against", str(made / "full.json"), "--out", str(out)]) == 0
    check = ["check", "hello", "--model", str(made / "model"), "--policies", str(policy)]
    assert run([*check, *MODEL]) in (0, 1)
    capsys.readouterr()
    assert run([*check, "--dtype", "bfloat16"]) == 2
    assert "not certified for how this model is run (dtype float32, now bfloat16)" in capsys.readouterr().err
