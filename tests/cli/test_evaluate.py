"""`guardrail evaluate` on a tiny model in which a trait can be seen: contract, gates, report, errors."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.cli import run
from guardrail.evaluation import baseline, sweep
from guardrail.extract import judges
from guardrail.extract.judges.check import built_in
from guardrail.extract.subject import Subject
from guardrail.statistics import intervals
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.types import Message
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

CONTRACT = (
    *("auroc", "tpr_at_1pct_fpr", "r_overall", "r_within", "auroc_vs_other_traits", "text_baseline_auroc"),
    *("average_precision", "auroc_by_layer", "slices", "nulls", "monitoring", "layer"),
)
MARKS = {"evil": "+++", "humor": "!!!", None: "..."}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 100)


@pytest.fixture
def no_text_baseline(monkeypatch):
    """It is slow, and has tests of its own."""
    monkeypatch.setattr(baseline, "available", lambda: False)


def prompt(trait, i):
    return f"number {i} {MARKS[trait]}"


def chats(trait, places):
    return [(Message("user", prompt(trait, i)),) for i in places]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, vectors made from other prompts than those that are evaluated, and a calibration."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    subject = Subject.load(str(folder / "model"), device="cpu")
    bare = subject.prompt_states(chats(None, range(100, 220)))
    made = {
        trait: TraitVector.from_difference(
            trait, subject.prompt_states(chats(trait, range(100, 160))).mean(0) - bare.mean(0), layer=2
        )
        for trait in ("evil", "humor")
    }
    provenance = Provenance(fingerprint=subject.fingerprint, method="mean difference", created="2026")
    vectors = TraitVectors(made, provenance)
    vectors.save(folder / "vectors.safetensors")
    layers = range(1, 5)
    tables = {
        trait: {row: Benign.of(bare[:, row] @ vector.probe[row] + vector.offset[row]) for row in layers}
        for trait, vector in vectors.items()
    }
    Calibration(
        fingerprint=subject.fingerprint,
        vectors_sha256=vectors.sha256,
        population="dots",
        created="2026",
        probes=tables,
        steering=tables,
    ).save(folder / "calibration.json")
    return folder


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.fixture
def data(tmp_path):
    """Both traits and neither, with expression that goes with the trait."""
    rng = np.random.default_rng(0)
    rows = []
    for trait in MARKS:
        for i in range(40):
            row = {
                "prompt": prompt(trait, i),
                "trait": trait,
                "condition": str(trait),
                "group": f"{trait}{i % 8}",
            }
            expression = [
                float(np.clip(50 * (trait == "evil") + rng.normal(30, 8), 0, 100)) for _ in range(2)
            ]
            rows.append({**row, "expression": {"evil": expression}, "style": ("plain", "odd")[i % 2]})
    return write(tmp_path / "data.jsonl", rows)


@pytest.fixture
def command(world):
    return ["evaluate", "--model", str(world / "model"), "--vectors", str(world / "vectors.safetensors")]


def found(capsys):
    return json.loads(capsys.readouterr().out)


def test_the_json_keeps_the_contract(command, data, capsys):
    assert run([*command, "--data", str(data), "--json"]) == 0
    result = found(capsys)
    assert list(result["traits"]) == ["evil", "humor"]
    for trait in result["traits"].values():
        assert set(CONTRACT) <= set(trait)
        for name in ("auroc", "tpr_at_1pct_fpr", "auroc_vs_other_traits", "text_baseline_auroc"):
            assert set(trait[name]) == {"value", "low", "high"}
            assert trait[name]["low"] <= trait[name]["value"] <= trait[name]["high"]
    evil, humor = result["traits"]["evil"], result["traits"]["humor"]
    assert evil["auroc"]["value"] > 0.95
    assert evil["nulls"]["shuffled_auroc"]["p"] < 0.01
    assert evil["nulls"]["layers"] == [1, 2, 3, 4]
    assert evil["r_overall"]["value"] > 0.8
    assert evil["r_within"] is not None
    assert evil["monitoring"]["references"]["reliability"]["replies"] == 2
    assert humor["r_overall"] is None
    assert set(evil["slices"]) == {"style", "length"} - ({"length"} - set(evil["slices"]))
    assert result["detectors"]["evil at 1% FPR"]["fpr"] is None
    assert result["cosines"]["evil"]["evil"] == pytest.approx(1)


def test_one_layer_is_evaluated_where_one_is_asked_for(command, data, capsys):
    assert run([*command, "--data", str(data), "--layer", "3", "--json"]) == 0
    evil = found(capsys)["traits"]["evil"]
    assert (evil["layer"], evil["nulls"]["layers"]) == (3, [3])


@pytest.mark.usefixtures("no_text_baseline")
def test_a_system_message_is_put_before_every_labelled_prompt(command, data, capsys):
    results = []
    for more in ([], ["--system", "!!! +++"]):
        assert run([*command, "--data", str(data), "--json", *more]) == 0
        results.append(found(capsys)["traits"]["evil"])
    assert results[0] != results[1]
    messages = [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write(data, [*rows, {"messages": messages, "trait": "evil"}])
    assert run([*command, "--data", str(data), "--system", "Be brief."]) == 2
    assert "data.jsonl:121: has a system message; leave out --system" in capsys.readouterr().err
    assert run(["evaluate", "--system", "Be brief."]) == 2
    assert "belong to --data" in capsys.readouterr().err


@pytest.mark.usefixtures("no_text_baseline")
def test_gates_decide_the_exit_code(command, world, data, capsys):
    calibrated = [*command, "--data", str(data), "--calibration", str(world / "calibration.json"), "--json"]
    assert run([*calibrated, "--min-auroc", "0.8"]) == 0
    assert {gate["verdict"] for gate in found(capsys)["gates"]} == {"passed"}
    assert run([*calibrated, "--min-auroc", "1"]) == 1
    assert {gate["verdict"] for gate in found(capsys)["gates"]} <= {"failed", "inconclusive"}
    assert run([*calibrated, "--max-fpr", "0.9"]) == 0
    assert [gate["of"] for gate in found(capsys)["gates"]] == ["evil at 1% FPR", "humor at 1% FPR"]
    assert run([*calibrated, "--max-fpr", "0.001"]) == 1
    capsys.readouterr()
    assert run([*command, "--data", str(data), "--max-fpr", "0.5"]) == 2
    assert "--max-fpr needs thresholds" in capsys.readouterr().err


@pytest.mark.usefixtures("no_text_baseline")
def test_policies_are_measured_as_compiled(world, data, tmp_path, capsys):
    file = tmp_path / "policies.yaml"
    file.write_text(
        f"""
version: 1
vectors: {world / "vectors.safetensors"}
calibration: {world / "calibration.json"}
policies:
  - {{id: no-evil, trait: evil, threshold: {{fpr: 0.05}}, action: block}}
  - {{id: watched, trait: humor, threshold: 2.0, mode: shadow, action: block}}
"""
    )
    command = [
        "evaluate",
        "--model",
        str(world / "model"),
        "--policies",
        str(file),
        "--data",
        str(data),
        "--json",
    ]
    assert run(command) == 0
    result = found(capsys)
    assert set(result["detectors"]) == {"no-evil", "watched"}
    assert result["detectors"]["no-evil"]["tpr"]["value"] > 0.9
    assert result["set_fpr"] == result["detectors"]["no-evil"]["fpr"]
    assert set(result["detectors"]["no-evil"]["fires_on"]) == {"evil", "humor", "benign"}
    assert run([*command, "--calibration", "demo"]) == 2


@pytest.mark.slow
def test_the_report_is_one_file_that_fetches_and_runs_nothing(command, data, tmp_path, capsys):
    """Whatever the names in the data are."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write(data, [{**row, "style": "<script>alert(1)</script>"} for row in rows])
    report = tmp_path / "report.html"
    assert run([*command, "--data", str(data), "--html", str(report), "--min-auroc", "0.5"]) == 0
    text = report.read_text()
    assert "AUROC" in capsys.readouterr().out
    assert "&lt;script&gt;alert" in text
    assert text.count("<figure>") >= 6
    assert not re.search(r"<(script|link|iframe|img|object)\b|@import|url\(\s*['\"]?http|src\s*=", text)
    links = re.findall(r"href=\"([^\"]*)\"", text)
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    ids = set(re.findall(r"id=\"([^\"]*)\"", text))
    assert {"detection", "confusion", "monitoring", "evil", "humor"} <= ids


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt": "a", "trait": "evil"}, {"prompt": "b", "trait": "evil"}],
            "show it; both kinds are needed",
        ),
        ([{"prompt": "a", "trait": "evil"}, {"prompt": "a", "trait": None}], "labelled differently"),
        ([{"prompt": "a", "trait": "apathy"}], "data.jsonl:1: there is no vector for the trait `apathy`"),
        ([], "the file contains no labelled prompt"),
    ],
)
def test_data_that_cannot_be_used_is_refused(command, tmp_path, capsys, rows, message):
    assert run([*command, "--data", str(write(tmp_path / "data.jsonl", rows))]) == 2
    assert message in capsys.readouterr().err


def test_what_does_not_fit_together_is_refused(command, world, data, tmp_path, capsys):
    def refused(*arguments):
        assert run(arguments) == 2
        return capsys.readouterr().err

    assert "only `demo` has a built-in set" in refused(*command)
    assert "no vectors" in refused(*command[:3], "--data", str(data))
    assert "cannot be read" in refused(*command, "--data", str(data), "--layer", "9")
    assert "no such folder" in refused(
        *command, "--data", str(data), "--html", str(tmp_path / "no" / "x.html")
    )
    assert "belong to --data" in refused("evaluate", "--seen", str(data))
    assert "--full belongs to the built-in set" in refused("evaluate", "--data", str(data), "--full")
    assert "--labels are labels of" in refused("evaluate", "--labels", str(data))
    assert "needs a judge" in refused(*command, "--data", str(data), "--steering")
    text = (world / "calibration.json").read_text().replace('"vectors_sha256": "', '"vectors_sha256": "0')
    other = tmp_path / "other.json"
    other.write_text(text)
    found = refused(*command, "--data", str(data), "--calibration", str(other))
    assert "made with another vector file" in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--layer 9", "layer 9 cannot be read; layers are 1 to 4"),
        ("--steering", "--steering needs a judge"),
        ("--steering --trait apathy", "no vector for the trait `apathy`"),
        ("--steering --judge refusal-rule --definition no.yaml", "no.yaml"),
        ("--steering --judge refusal-rule --definition apathy", "there is no definition of `evil`"),
        ("--steering --judge nobody", "nobody"),
        ("--steering --judge refusal-rule --capability no.jsonl", "no.jsonl: cannot be read"),
        ("--own-replies 2", "no judge: give --judge"),
        ("--own-replies 2 --judge refusal-rule --definition no.yaml", "no.yaml"),
    ],
)
def test_what_is_missing_is_said_before_a_model_is_loaded(world, data, capsys, options, message):
    named = ["--model", "no/such-model", "--vectors", str(world / "vectors.safetensors"), "--data", str(data)]
    assert run(["evaluate", *named, *options.split()]) == 2
    assert message in capsys.readouterr().err


def test_prompts_that_the_model_cannot_read_whole_are_named(command, tmp_path, capsys):
    rows = [{"prompt": "x" * 600, "trait": "evil"}, {"prompt": "short", "trait": None}]
    assert run([*command, "--data", str(write(tmp_path / "data.jsonl", rows))]) == 2
    assert re.search(r"data.jsonl:1: 6\d\d tokens, and the model reads 512", capsys.readouterr().err)


class Judge:
    """Scores by length, but knows the pairs that judges are checked with."""

    name = "length"
    right = frozenset(pair.positive for pairs in built_in().values() for pair in pairs)

    def scores(self, requests):
        return [100.0 if r.answer in self.right else float(len(r.answer) % 100) for r in requests]


@pytest.mark.usefixtures("no_text_baseline")
@pytest.mark.slow
def test_steering_is_swept_by_a_definitions_questions_and_a_judge(
    command, world, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sweep, "COEFFICIENTS", {"add": (-1.0, 1.0), "cap": (50.0,)})
    monkeypatch.setattr(judges, "find_judge", lambda name, plugins, **options: Judge())
    questions = write(tmp_path / "mc.jsonl", [{"question": "?", "options": ["a", "b"], "answer": 0}])
    report = tmp_path / "report.html"
    calibrated = [*command, "--data", str(data), "--calibration", str(world / "calibration.json")]
    wanted = [
        "--steering",
        "--trait",
        "evil",
        "--judge",
        "length",
        "--questions",
        "2",
        "--max-new-tokens",
        "4",
    ]
    assert run([*calibrated, *wanted, "--capability", str(questions), "--html", str(report), "--json"]) == 0
    points = found(capsys)["steering"]["points"]
    assert len(points) == 2 + 3 * 3
    assert {point["operator"] for point in points} == {None, "add", "cap"}
    assert all(point["capability"]["value"] in (0.0, 1.0) for point in points)
    assert 'id="steering"' in report.read_text()
    monkeypatch.setattr(Judge, "right", frozenset())
    assert run([*calibrated, *wanted]) == 1
    assert "the judge length is useless for this: evil" in capsys.readouterr().err
    assert run([*calibrated, *wanted, "--trait", "apathy"]) == 2
    assert "no vector for the trait `apathy`" in capsys.readouterr().err


KNOWING = """
from guardrail.extract.judges.check import built_in

RIGHT = {pair.positive for pairs in built_in().values() for pair in pairs}
ASKED = {pair.question for pairs in built_in().values() for pair in pairs}

def score(request):
    if request.question in ASKED:
        return 100.0 * (request.answer in RIGHT)
    shown = request.metric == "evil" and "+++" in request.question
    return 50.0 * shown + 3 * (int(request.question.split()[1]) % 5) + len(set(request.answer))
"""


@pytest.mark.usefixtures("no_text_baseline")
def test_the_model_itself_replies_to_labelled_prompts_for_the_correlation(command, tmp_path, capsys):
    rows = [{"prompt": prompt(trait, i), "trait": trait} for trait in MARKS for i in range(12)]
    data, judge = write(tmp_path / "data.jsonl", rows), tmp_path / "judge.py"
    judge.write_text(KNOWING)
    asked = ["--own-replies", "2", "--max-new-tokens", "4", "--judge", f"python:{judge}", "--json"]
    assert run([*command, "--data", str(data), *asked]) == 0
    told = capsys.readouterr()
    assert "72 replies of at most 4 tokens, 144 requests to the judge: " in told.err
    evil = json.loads(told.out)["traits"]["evil"]
    assert evil["r_overall"]["value"] > 0.8
    monitoring = evil["monitoring"]
    assert (monitoring["prompts"], monitoring["conditions"]) == (36, 3)
    assert monitoring["references"]["reliability"]["replies"] == 2
    assert evil["r_within"]["value"] < evil["r_overall"]["value"]
    kept = (tmp_path / "data.jsonl.own-replies" / "rollouts.jsonl").read_bytes()
    assert len(kept.splitlines()) == 1 + 72
    assert run([*command, "--data", str(data), *asked]) == 0
    again = capsys.readouterr()
    assert "nothing left to do" in again.err
    assert json.loads(again.out)["traits"]["evil"]["r_overall"] == evil["r_overall"]
    assert (tmp_path / "data.jsonl.own-replies" / "rollouts.jsonl").read_bytes() == kept
    assert run([*command, "--data", str(data), "--own-replies", "2"]) == 2
    assert "no judge: give --judge" in capsys.readouterr().err
    assert run(["evaluate", "--own-replies", "2"]) == 2
    assert "--own-replies and --work belong to --data" in capsys.readouterr().err


def test_help_loads_no_torch():
    code = (
        "import sys; from guardrail.cli import run; run(['evaluate', '--help']);"
        "assert not {'torch', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
