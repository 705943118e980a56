"""A judge against people: numbers checked by hand and against other libraries, files, and the command."""

import json

import numpy as np
import pytest
from endpoints import failed, said, script, server
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from guardrail.cli import run
from guardrail.errors import ConfigError
from guardrail.extract.judges.agreement import agreement, bootstrap, kappa, pearson, wilson
from guardrail.extract.judges.labels import read_labels


def paired(both, judge_only, people_only, neither):
    rows = [(90, 100)] * both + [(90, 0)] * judge_only + [(10, 100)] * people_only + [(10, 0)] * neither
    return np.array(rows, float)


def test_kappa_by_hand():
    """Cohen's textbook table: 20 and 15 agree, 5 and 10 do not; kappa is .4."""
    assert kappa(paired(20, 5, 10, 15)) == pytest.approx(0.4)


def test_kappa_as_sklearn_has_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pairs = rng.uniform(0, 100, (30, 2))
        assert kappa(pairs) == pytest.approx(cohen_kappa_score(pairs[:, 0] >= 50, pairs[:, 1] >= 50))


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (284, 300), (1, 2)])
def test_wilson_as_scipy_has_it(hits, n):
    expected, found = binomtest(hits, n).proportion_ci(method="wilson"), wilson(hits, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_pearson_as_numpy_has_it():
    pairs = np.random.default_rng(1).normal(50, 20, (40, 2))
    assert pearson(pairs) == pytest.approx(np.corrcoef(pairs.T)[0, 1])


def test_a_sample_too_large_for_one_draw_gives_the_same_as_in_parts(monkeypatch):
    pairs = paired(40, 5, 10, 45)
    whole = bootstrap(pairs, kappa, 0)
    monkeypatch.setattr("guardrail.extract.judges.agreement.CELLS", 700)
    assert bootstrap(pairs, kappa, 0) == whole


def test_the_bootstrap_covers_what_it_says():
    """Of 120 samples from a population with a known kappa, about 95 % of the intervals hold it."""
    truth, rng = kappa(paired(400, 50, 100, 450)), np.random.default_rng(2)
    population = paired(400, 50, 100, 450)
    found = [bootstrap(population[rng.integers(0, 1000, 150)], kappa, seed) for seed in range(120)]
    covered = sum(estimate.low <= truth <= estimate.high for estimate in found)
    assert 0.90 <= covered / 120 <= 0.99


def test_refusals_are_counted_and_are_in_no_number():
    found = agreement("evil", [90, None, 10, None, 90], [100, 100, 0, 0, 0], scored=False)
    assert (found.n, found.refused) == (3, 2)
    assert (found.both, found.judge_only, found.people_only, found.neither) == (1, 1, 0, 1)
    assert found.agreement.value == pytest.approx(2 / 3)
    assert found.correlation is None


def test_a_score_of_50_says_yes():
    assert agreement("evil", [50.0], [50.0], scored=True).both == 1


@pytest.mark.parametrize("judged", [[None, None], [10, 10]])
def test_what_is_not_defined_is_none(judged):
    found = agreement("evil", judged, [0, 0], scored=True)
    assert (found.kappa, found.correlation) == (None, None)
    assert (found.agreement is None) == (judged[0] is None)


def labels_file(tmp_path, rows):
    path = tmp_path / "labels.jsonl"
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8"
    )
    return path


def row(i, **changes):
    return {"question": f"q{i}", "answer": str(i), "trait": "evil", "label": i >= 50, **changes}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{", r"jsonl:2: not JSON"),
        (row(1, label=None), "needs either `label`"),
        (row(1, score=3), "needs either `label`"),
        (row(1, label="yes"), r"jsonl:2: label: must be true or false"),
        (row(1, label=None, score=101), r"jsonl:2: score: must be at most 100, not 101"),
        ({"question": "q", "trait": "evil", "label": True}, r"jsonl:2: answer: is missing"),
        (row(1, label=None, score=10), "`evil` has both labels and scores"),
        ("[1]", r"jsonl:2: "),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, bad, words):
    with pytest.raises(ConfigError, match=words):
        read_labels(labels_file(tmp_path, [row(0), bad]))


def csv_file(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_come_from_a_table_too(tmp_path):
    text = (
        "\ufeffquestion,answer,trait,label,score,who\n"
        'Why?,"No, never.\nNot once.",evil,TRUE,,anna\n'
        "How?,12,evil,0,,ben\n"
        "When?,Now.,humor,,62.5,\n"
    )
    first, second, third = read_labels(csv_file(tmp_path, text))
    assert (first.answer, first.label) == ("No, never.\nNot once.", True)
    assert (second.answer, second.label) == ("12", False)
    assert (third.trait, third.value) == ("humor", 62.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question,reply,trait\na,b,evil\n", r"csv:1: no column named answer"),
        ("question,answer,trait,label\na,b,evil,maybe\n", r"csv:2: label: must be true or false"),
        ("question,answer,trait,score\na,b,evil,high\n", r"csv:2: score: "),
        ("question,answer,trait,label\na,b,,1\n", r"csv:2: trait: is missing"),
        ("question,answer,trait,label\n", "contains no labels"),
        ("", r"csv:1: no column named answer, question, trait"),
    ],
)
def test_a_table_that_is_wrong_is_named(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        read_labels(csv_file(tmp_path, text))


def test_no_labels_and_no_file(tmp_path):
    with pytest.raises(ConfigError, match="contains no labels"):
        read_labels(labels_file(tmp_path, [""]))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labels(tmp_path / "none.jsonl")


def scoring(body):
    """Scores the number in the answer, except that it takes 40 to 49 for 90; 7 is not judged."""
    text = body["messages"][-1]["content"]
    answer = text.split("<answer>")[-1].split("</answer>")[0].strip()
    if answer == "7":
        return said("REFUSAL", first={"REFUSAL": 0.98, "0": 0.02})
    said_score = "90" if answer.startswith("4") and len(answer) == 2 else answer if answer.isdigit() else "85"
    return said(said_score, first={said_score: 0.8, "maybe": 0.2})


def arguments(path, url, *more):
    where = ["--judge", "openai:m", "--base-url", url, "--api-key-env", "NO_KEY"]
    return ["judge", "agreement", "--labels", str(path), *where, *more]


def test_the_command_against_an_endpoint(tmp_path, capsys):
    path = labels_file(tmp_path, [row(i) for i in range(100)])
    with server(scoring) as (url, seen):
        cache = ["--judge-cache", str(tmp_path / "cache.sqlite")]
        assert run(arguments(path, url, "--json", *cache)) == 0
        asked = len(seen.bodies)
        assert run(arguments(path, url, *cache)) == 0
        assert len(seen.bodies) == asked == 101
    first, table = capsys.readouterr().out.split("\n", 1)
    (found,) = json.loads(first)["traits"]
    assert (found["n"], found["refused"], found["trait"]) == (99, 1, "evil")
    counts = [found[key] for key in ("both", "judge_only", "people_only", "neither")]
    assert counts == [50, 10, 0, 39]
    assert found["agreement"]["value"] == pytest.approx(89 / 99)
    assert found["agreement"]["low"] < 89 / 99 < found["agreement"]["high"]
    assert found["kappa"]["value"] == pytest.approx(
        cohen_kappa_score([1] * 60 + [0] * 39, [1] * 50 + [0] * 49)
    )
    assert "openai:m against people, 95 % intervals; numbers had 79.2% of the probability" in table
    assert "0.899 [" in table


def test_scores_of_people_give_a_correlation(tmp_path, capsys):
    path = labels_file(tmp_path, [row(i, label=None, score=float(i)) for i in range(50, 100)])
    with server(scoring) as (url, _):
        assert run(arguments(path, url, "--json")) == 0
    (found,) = json.loads(capsys.readouterr().out)["traits"]
    assert found["correlation"]["value"] == pytest.approx(1)


def test_a_trait_of_ones_own_needs_its_definition(tmp_path, capsys):
    path = labels_file(tmp_path, [row(60, trait="smug"), row(10, trait="smug")])
    (tmp_path / "smug.yaml").write_text(
        "name: smug\ndescription: Pride.\ninstructions: [{positive: a, negative: b}]\n"
        "extraction: [Why?]\nevaluation: [How?]\n"
    )
    with server(scoring) as (url, seen):
        assert run(arguments(path, url)) == 2
        assert "smug: there is no trait definition" in capsys.readouterr().err
        assert run(arguments(path, url, "--definition", str(tmp_path / "smug.yaml"))) == 0
    assert "Pride." in seen.user_texts()[-1]


def test_the_demo_judge_needs_no_endpoint(tmp_path, capsys):
    path = labels_file(tmp_path, [row(1), row(60)])
    assert run(["judge", "agreement", "--labels", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["traits"]
    assert (found["n"], found["refused"], found["agreement"]) == (0, 2, None)
    assert run(["judge", "agreement", "--labels", str(path)]) == 0
    assert "nothing is known; the judge scored none of 2 replies" in capsys.readouterr().out


def test_an_endpoint_that_is_down_is_2(tmp_path, capsys):
    with server(script(failed(401, "who are you?"))) as (url, _):
        assert run(arguments(labels_file(tmp_path, [row(1)]), url)) == 2
    assert "error: the judge openai:m cannot be used" in capsys.readouterr().err
