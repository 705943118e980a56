"""The verbs that need no model: policy, traits and vectors, with their exit codes and their JSON."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import FINGERPRINT, world

from guardrail.calibration.certificates import Certificate
from guardrail.calibration.values import Calibration
from guardrail.cli import VERBS, build, run
from guardrail.cli.console import print_json
from guardrail.types import Configuration, ProbeSite
from guardrail.vectors.values import TraitVectors

ROOT = Path(__file__).parents[2]
CHATBOT = str(ROOT / "policies" / "chatbot.yaml")
CASES = Path(__file__).parents[1] / "policies"


@pytest.fixture
def folder(tmp_path, capsys):
    """The paper model as files, with all policy cases beside it."""
    world(tmp_path)
    for path in CASES.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    print_json(FINGERPRINT)
    (tmp_path / "fingerprint.json").write_text(capsys.readouterr().out)
    return tmp_path


def paper(folder, name):
    return [str(folder / f"{name}.yaml"), "--fingerprint", str(folder / "fingerprint.json")]


def test_a_valid_file_is_0_and_says_what_it_holds(capsys):
    assert run(["policy", "validate", CHATBOT]) == 0
    assert "valid; 4 policies (4 enforce)" in capsys.readouterr().out


def test_a_valid_file_as_json(folder, capsys):
    assert run(["policy", "validate", *paper(folder, "every-key"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"]
    assert answer["policies"] == ["simple", "together", "either", "steered"]
    assert len(answer["policy_sha256"]) == 64
    assert answer["warnings"][0] == "simple: fails open: `on_error: allow`"


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.txt")))
def test_a_wrong_file_is_2_with_every_problem_and_no_traceback(folder, name, capsys):
    assert run(["policy", "validate", *paper(folder, name)]) == 2
    captured = capsys.readouterr()
    expected = (CASES / f"{name}.txt").read_text().splitlines()
    lines = captured.err.removeprefix("error: ").strip().splitlines()
    assert len(lines) == len(expected)
    assert all(line.startswith(str(folder / f"{name}.yaml:")) for line in lines)
    assert captured.out == ""


def test_problems_as_json(folder, capsys):
    assert run(["policy", "validate", *paper(folder, "unknown-keys"), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert not answer["valid"]
    assert [(p["key"], p["line"], p["column"]) for p in answer["problems"]] == [
        ("polices", 4, 1),
        ("policies[0].treshold", 8, 5),
        ("policies[0].colour", 10, 5),
    ]


def test_half_a_surrogate_pair_is_a_problem_in_json_too(folder, capsys):
    (folder / "half.yaml").write_text('version: 1\npolicies: [{id: "\\ud800"}]\n')
    run(["policy", "validate", *paper(folder, "half"), "--json"])
    assert "policies[0].id" in [p["key"] for p in json.loads(capsys.readouterr().out)["problems"]]


@pytest.mark.parametrize(
    ("verb", "said"), [("validate", "valid; 1 policy (1 enforce)"), ("explain", "reads layer 3;")]
)
def test_one_policy_and_one_layer_are_not_many(folder, verb, said, capsys):
    (folder / "one.yaml").write_text(
        "version: 1\nvectors: vectors.safetensors\n"
        "policies: [{id: a, trait: evil, layer: 3, threshold: {raw: 1}, action: block}]\n"
    )
    run(["policy", verb, *paper(folder, "one")])
    assert said in capsys.readouterr().out


def test_a_calibration_is_a_fingerprint_too(folder):
    calibration = str(folder / "calibration.json")
    assert run(["policy", "validate", str(folder / "every-key.yaml"), "--fingerprint", calibration]) == 0


def test_another_model_is_2(folder, capsys):
    assert run(["policy", "validate", str(folder / "every-key.yaml")]) == 2
    assert "made for a model of 4 layers x 32" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layers": 3}'])
def test_a_wrong_fingerprint_is_2(folder, content, capsys):
    (folder / "fingerprint.json").write_text(content)
    assert run(["policy", "validate", *paper(folder, "every-key")]) == 2
    assert "cannot be read as a fingerprint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["policy", "validate"], ["policy", "nonsense"], ["nonsense"], ["policy", "validate", CHATBOT, "-x"]],
)
def test_a_usage_error_is_2(arguments):
    assert run(arguments) == 2


def test_the_schema_is_json(capsys):
    assert run(["policy", "schema"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == json.loads((ROOT / "policies" / "schema.json").read_text())


def test_explain_shows_layers_thresholds_and_rates(folder, capsys):
    assert run(["policy", "explain", *paper(folder, "every-key")]) == 0
    out = capsys.readouterr().out
    assert "1.00% [0.48%, 1.70%]" in out
    assert "an upper bound" in out
    assert "steered: cap at 3, 4, limits" in out
    assert "warning: simple: fails open" in out


def test_explain_as_json(folder, capsys):
    assert run(["policy", "explain", *paper(folder, "every-key"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    simple, together, _, steered = answer["policies"]
    assert (simple["fpr"]["value"], simple["fpr"]["n"], simple["fpr"]["bound"]) == (0.01, 999, False)
    assert simple["conditions"][0]["layer"] == 3
    assert together["fpr"]["bound"]
    assert (steered["steering"]["operator"], steered["steering"]["layers"]) == ("cap", [3, 4])
    assert answer["set_fpr_upper_bound"]["value"] <= 1
    assert answer["reads_layers"] == [2, 3]


def test_explain_shows_what_the_calibration_is_certified_for(folder, capsys):
    path = folder / "calibration.json"
    one = Certificate(
        configuration=Configuration(engine="vllm", dtype="bfloat16"),
        created="2026-01-01T00:00:00+00:00",
        prompts=500,
        max_age_days=30.0,
    )
    Calibration.load(path).certified(one).save(path)
    assert run(["policy", "explain", *paper(folder, "every-key")]) == 0
    out = capsys.readouterr().out
    assert "certified for vllm, bfloat16" in out
    assert "until 2026-01-31: the calibration's certificate expired on 2026-01-31" in out
    assert run(["policy", "explain", *paper(folder, "every-key"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["certificates"][0]["configuration"]["dtype"] == "bfloat16"
    assert [policy["on_stale"] for policy in answer["policies"]] == ["block", *["escalate"] * 3]


def test_explain_without_a_calibration_says_unknown(folder, capsys):
    (folder / "raw.yaml").write_text(
        "version: 1\nvectors: vectors.safetensors\n"
        "policies: [{id: a, trait: evil, threshold: {raw: 1}, action: block}]\n"
    )
    assert run(["policy", "explain", *paper(folder, "raw")]) == 0
    out = capsys.readouterr().out
    assert "all enforced policies on benign prompts: unknown" in out
    assert "warning: a: enforced without a calibration" in out


def test_explain_and_vectors_say_what_is_read_besides_the_last_token(folder, capsys):
    vectors = TraitVectors.load(folder / "vectors.safetensors")
    evil = vectors["evil"]
    sites = tuple(
        ProbeSite(layer=layer, position=position, weights=evil.probe[layer], normalised=layer == 2)
        for layer, position in ((2, "user_mean"), (3, "last"))
    )
    made = {**vectors.vectors, "evil": replace(evil, layer=3, position="prompt_mean", sites=sites)}
    TraitVectors(made, vectors.provenance).save(folder / "read-outs.safetensors")
    rules = ", ".join(
        f"{{id: {name}, trait: evil, layer: {layer}, threshold: {{raw: 1}}, action: block}}"
        for name, layer in (("sum", 3), ("row", 1))
    )
    (folder / "read-outs.yaml").write_text(
        f"version: 1\nvectors: read-outs.safetensors\npolicies: [{rules}]\n"
    )
    assert run(["policy", "explain", *paper(folder, "read-outs")]) == 0
    out = capsys.readouterr().out
    assert "sum: evil at layer 3 reads user_mean (layer 2, unit norm) + last (layer 3)" in out
    assert "row: evil at layer 1 reads prompt_mean" in out
    assert "reads layers 1, 2, 3;" in out
    assert run(["policy", "explain", *paper(folder, "read-outs"), "--json"]) == 0
    first, _ = json.loads(capsys.readouterr().out)["policies"]
    assert first["reads"] == {"evil at layer 3": "user_mean (layer 2, unit norm) + last (layer 3)"}
    assert run(["vectors", "show", str(folder / "read-outs.safetensors")]) == 0
    assert "evil: the probe reads user_mean (layer 2, unit norm) + last (layer 3)" in capsys.readouterr().out


def test_traits_list(capsys):
    assert run(["traits", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"evil", "sycophancy", "hallucination", "humor"} <= set(rows)
    assert all(row["layer"] >= 1 for row in rows.values() if row["vectors"])
    assert all(row["description"] for row in rows.values() if row["definition"])
    assert run(["traits", "list"]) == 0
    assert "evil" in capsys.readouterr().out


def test_traits_show(capsys):
    assert run(["traits", "show", "evil", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["extraction"]
    assert answer["evaluation"]
    assert run(["traits", "show", "evil"]) == 0
    assert answer["instructions"][0]["positive"] in capsys.readouterr().out


def test_an_unknown_trait_is_2_with_a_suggestion(capsys):
    assert run(["traits", "show", "evli"]) == 2
    assert (
        capsys.readouterr().err
        == "error: evli: there is no trait definition of this name; did you mean `evil`?\n"
    )


def test_vectors_show(folder, capsys):
    assert run(["vectors", "show", str(folder / "vectors.safetensors"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [t["name"] for t in answer["traits"]] == ["evil", "hallucination", "sycophancy"]
    assert answer["traits"][0]["norms"] == [1.0] * 5
    assert answer["cosines"]["evil"]["evil"] == pytest.approx(1)
    assert run(["vectors", "show", str(folder / "vectors.safetensors")]) == 0
    assert "hand-made" in capsys.readouterr().out


def test_vectors_that_cannot_be_read_are_2(folder, capsys):
    assert run(["vectors", "show", str(folder / "nowhere.safetensors")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_vectors_project(capsys):
    assert run(["vectors", "project", "Hello.", "--trait", "evil", "--trait", "humor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["prompt"] == "Hello."
    assert {name: len(row) for name, row in answer["scores"].items()} == {"evil": 8, "humor": 8}
    assert run(["vectors", "project", "Hello.", "--trait", "nobody"]) == 2


def test_every_verb_has_help(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    groups = {group.name for group in build().registered_groups}
    assert groups <= set(VERBS)
    assert all(name in out for name in groups)


LIGHT = ["--help"], ["--version"], ["policy", "validate", CHATBOT], ["policy", "schema"], ["traits", "list"]
IMPORTED = """
import json, sys
from guardrail.cli import run

for arguments in json.loads(sys.argv[1]):
    code = run(arguments)
    heavy = sorted({"torch", "transformers", "nnsight"} & set(sys.modules))
    if code or heavy:
        sys.exit(f"{arguments}: exit code {code}, imports {heavy}")
"""


def test_no_model_library_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, json.dumps(LIGHT)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
