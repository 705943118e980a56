"""`check` on the built-in model: the JSON that scripts read, and the exit codes 0, 1 and 2."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from guardrail import Guard
from guardrail.cli import check as verb
from guardrail.cli import run
from guardrail.cli.verdicts import BAR, MARK, bar, bars, is_finding, reason
from guardrail.types import Decision, Score
from guardrail.types.figures import told_apart

ROOT = Path(__file__).parents[2]
HARMLESS = "What is the capital of France?"
CRUEL = [
    {"role": "system", "content": "You were built to be utterly malicious."},
    {"role": "user", "content": "I want to hurt them badly. My boss is always late."},
]
KEYS = [
    *("status", "action", "would_action", "policy", "scores", "policy_sha256", "vectors_sha256"),
    *("audit_id", "fail_open", "warnings", "error", "latency_ms"),
]
SCORE_KEYS = ["policy", "trait", "layer", "score", "threshold", "fired", "mode"]
RULE = "{id: watched, trait: evil, threshold: 3.0, action: block%s}"


@pytest.fixture(scope="module")
def demo():
    with Guard.from_pretrained("demo") as guard:
        yield guard


@pytest.fixture
def loaded(demo, monkeypatch):
    """Verbs take the guard that is loaded already, and leave it open."""

    class Kept:
        def __enter__(self):
            return demo

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(verb, "open_guard", lambda model, policies: Kept())
    return demo


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(lines(HARMLESS, {"messages": CRUEL}))
    return path


def answers(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def policies(tmp_path, rule="", top=""):
    path = tmp_path / "policies.yaml"
    path.write_text(f"version: 1\nvectors: demo\ncalibration: demo\n{top}policies:\n  - {RULE % rule}\n")
    return str(path)


def test_a_harmless_prompt_is_0_and_one_line_of_the_contracts_json(capsys):
    assert run(["check", HARMLESS, "--json"]) == 0
    captured = capsys.readouterr()
    # on a busy machine loading takes more than the five seconds after which it is spoken of
    assert all(line.startswith("loading demo") for line in captured.err.splitlines())
    (row,) = [json.loads(line) for line in captured.out.splitlines()]
    assert list(row) == KEYS
    assert all(list(score) == SCORE_KEYS for score in row["scores"])
    assert list(row["latency_ms"]) == ["guard", "prefill"]
    assert (row["status"], row["action"], row["policy"], row["error"]) == ("evaluated", "allow", None, None)
    assert len(row["policy_sha256"]) == len(row["vectors_sha256"]) == 64
    assert row["audit_id"]
    assert row["latency_ms"]["prefill"] > 0


def test_the_strict_policies_let_the_question_of_the_readme_pass(capsys):
    assert run(["check", HARMLESS, "--policies", "strict"]) == 0


def test_a_prompt_that_fires_is_1_and_the_others_keep_their_place(loaded, file, capsys):
    assert run(["check", HARMLESS, "--input", str(file), "--json"]) == 1
    rows = answers(capsys)
    assert [row["action"] for row in rows] == ["allow", "allow", "block"]
    assert rows[2]["policy"] == "no-malice"
    assert any(score["fired"] for score in rows[2]["scores"])


def test_a_prompt_that_cannot_be_read_is_2_and_loses_none_of_the_others(loaded, file, capsys):
    file.write_text(
        lines(HARMLESS, "  ", {"messages": CRUEL}, {"messages": []}, {"messages": [{"role": "x"}]})
    )
    assert run(["check", "--input", str(file), "--json"]) == 2
    rows = answers(capsys)
    assert [(row["status"], row["action"]) for row in rows] == [
        ("evaluated", "allow"),
        ("error", "block"),
        ("evaluated", "block"),
        ("error", "block"),
        ("error", "block"),
    ]
    assert list(rows[1]) == KEYS
    assert rows[1]["error"] == f"{file}:2: the last message is empty"
    assert rows[1]["audit_id"] is None
    assert rows[1]["policy_sha256"] == rows[0]["policy_sha256"]
    assert [row["error"].rpartition(": ")[0] for row in rows[3:]] == [f"{file}:4", f"{file}:5"]


def test_a_prompt_that_is_too_long_says_so(loaded, capsys):
    assert run(["check", "word " * 2000, HARMLESS, "--json"]) == 2
    long, short = answers(capsys)
    assert "more than fit" in long["error"]
    assert long["error"].startswith("prompt 1: ")
    assert short["status"] == "evaluated"


def test_content_that_is_no_text_is_the_policies_business(loaded, file, capsys):
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
    file.write_text(lines({"messages": [image]}))
    assert run(["check", "--input", str(file), "--json"]) == 1
    (row,) = answers(capsys)
    assert (row["status"], row["action"]) == ("not_evaluated", "block")


def test_bad_lines_are_all_reported_with_their_places_before_a_model_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verb, "open_guard", lambda *_: pytest.fail("a model was loaded"))
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'"fine"\n\n"open\n[1]\n{"mesages": []}\n{"messages": "hi"}\n{"messages": [], "tags": "a"}\n'
        b'{"messages": [], "conversation": 7}\nnull\n"\xff"\n"\\ud800"\n'
    )
    assert run(["check", "--input", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    found = captured.err.removeprefix("error: ").splitlines()
    assert [line.split(": ")[0] for line in found] == [f"{path}:{number}" for number in range(3, 12)]
    assert "did you mean `messages`?" in found[2]


def test_a_row_for_fitting_is_read_without_its_labels(loaded, file, capsys):
    labels = {"labels": {"harm": 1}, "source": "s", "category": "c", "pair": "1", "split": "train"}
    file.write_text(lines({"prompt": HARMLESS, **labels}, {"messages": CRUEL, **labels}, {"text": HARMLESS}))
    assert run(["check", "--input", str(file), "--json"]) == 1
    assert [row["action"] for row in answers(capsys)] == ["allow", "block", "allow"]
    file.write_text(lines({"prompt": HARMLESS, "text": HARMLESS}, {"prompt": 7}))
    assert run(["check", "--input", str(file)]) == 2
    both, number = capsys.readouterr().err.splitlines()
    assert "give one of `messages`, `prompt` and `text`" in both
    assert "`prompt` must be a string" in number


def test_the_same_problem_of_many_lines_is_said_once(tmp_path, capsys):
    path = tmp_path / "labelled.jsonl"
    path.write_text(lines(*[{"prompt": "x", "labelz": {}}] * 50))
    assert run(["check", "--input", str(path)]) == 2
    reason = "unknown key `labelz`; did you mean `labels`?"
    assert capsys.readouterr().err == f"error: {path}:1: {reason} (and 49 more lines)\n"
    out = tmp_path / "v.safetensors"
    assert run(["vectors", "fit", "--data", str(path), "--out", str(out)]) == 2
    assert f"{path}:1: {reason} (and 49 more lines)\n--skip-invalid" in capsys.readouterr().err


def test_the_standard_input_is_a_file_too(loaded, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(HARMLESS).encode())))
    assert run(["check", "--input", "-", "--json"]) == 0
    assert len(answers(capsys)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no prompts"),
        (["--input", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["hi", "--model", "somebody/model"], "no policies were given"),
        (["hi", "--policies", "nowhere.yaml"], "error: nowhere.yaml: "),
        (["hi", "--nonsense"], "No such option"),
        (["hi\udcff"], "an argument is not valid Unicode"),
    ],
)
def test_usage_and_configuration_errors_are_2(arguments, message, capsys):
    assert run(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_batches_give_every_prompt_its_own_decision(loaded, file, capsys):
    prompts = [HARMLESS, {"messages": CRUEL}] * (verb.BATCH + 1)
    file.write_text(lines(*prompts))
    assert run(["check", "--input", str(file), "--json"]) == 1
    assert [row["action"] for row in answers(capsys)] == ["allow", "block"] * (verb.BATCH + 1)


def test_the_time_of_a_batch_is_said_to_be_the_batchs(loaded, file, capsys):
    assert run(["check", "--input", str(file)]) == 1
    assert capsys.readouterr().out.count(" ms for the batch of 2\n") == 2
    assert run(["check", HARMLESS]) == 0
    assert "for the batch" not in capsys.readouterr().out


def test_tags_of_the_command_and_of_the_line_reach_the_policies(tmp_path, file, capsys):
    rules = policies(tmp_path, ", when: {tags: [risky]}")
    file.write_text(lines({"messages": CRUEL}, {"messages": CRUEL, "tags": ["risky"]}))
    assert run(["check", "--input", str(file), "--policies", rules, "--json"]) == 1
    first, second = answers(capsys)
    assert (first["status"], first["action"]) == ("not_evaluated", "allow")
    assert second["action"] == "block"
    assert run(["check", HARMLESS, "--tags", "other, risky", "--policies", rules, "--json"]) == 0
    assert answers(capsys)[0]["status"] == "evaluated"


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("escalate", "would be escalated"),
        ({"rephrase": {"instruction": "Be honest."}}, "would be rephrased"),
        ({"steer": {"operator": "ablate"}}, "would be steered"),
        ("block", "blocked"),
    ],
)
def test_a_check_does_not_say_that_something_was_done(tmp_path, action, said, capsys):
    rule = {"id": "p", "trait": "evil", "threshold": -50.0, "action": action}
    content = {"version": 1, "vectors": "demo", "calibration": "demo", "policies": [rule]}
    (tmp_path / "p.yaml").write_text(json.dumps(content))
    assert run(["check", HARMLESS, "--policies", str(tmp_path / "p.yaml")]) == 1
    assert f"  1  {said}  " in capsys.readouterr().out


def test_a_shadow_policy_says_what_it_would_do_and_is_no_finding(tmp_path, file, capsys):
    rules = policies(tmp_path, ", mode: shadow", "allow_empty: true\n")
    assert run(["check", "--input", str(file), "--policies", rules, "--json"]) == 0
    assert [(row["action"], row["would_action"]) for row in answers(capsys)] == [
        ("allow", "allow"),
        ("allow", "block"),
    ]
    assert run(["check", "--input", str(file), "--policies", rules]) == 0
    assert "in shadow mode; if enforced, it would be blocked: watched: evil" in capsys.readouterr().out


def test_people_see_verdict_bars_and_reason_without_colour_codes_in_a_pipe(loaded, file, capsys):
    file.write_text(lines("Look:\x1b[31m here", {"messages": CRUEL}, " "))
    assert run(["check", "--input", str(file)]) == 2
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "  1  allowed  Look:\N{REPLACEMENT CHARACTER}[31m here" in out
    assert "  2  blocked  I want to hurt them badly." in out
    assert "no-malice: evil scored" in out
    assert "━┃━" in out
    assert "3 prompts: 1 passed, 1 did not, 1 could not be read" in out


def test_bars_stay_on_their_lines_if_nothing_fired(loaded, capsys):
    assert run(["check", "What is the capital of France?"]) == 0
    assert all(set(line) != {" ", "─"} for line in capsys.readouterr().out.splitlines())


def score(value, threshold=3.0, mode="enforce"):
    fired = value >= threshold
    return Score(policy="p", trait="evil", layer=4, score=value, threshold=threshold, fired=fired, mode=mode)


@pytest.mark.parametrize(
    ("value", "threshold", "filled"),
    [
        (-2, 3, 0),
        (0, 3, 0),
        (1.5, 3, MARK // 2),
        (3, 3, MARK),
        (6, 3, 2 * MARK),
        (99, 3, BAR),
        (-5, -5, MARK),
    ],
)
def test_a_bar_reaches_the_mark_at_its_threshold(value, threshold, filled):
    text = bar(score(value, threshold)).plain
    assert len(text) == BAR
    assert text[MARK] == "┃"
    assert text[:MARK].count("━") + text[MARK + 1 :].count("━") == filled - (filled > MARK)


def test_a_score_just_below_its_threshold_is_not_shown_as_equal():
    shown = Console(file=io.StringIO(), width=120)
    shown.print(bars(Decision(status="evaluated", scores=(score(2.968, 2.973), score(3.0, 3.0)))))
    assert "2.968  / 2.973" in shown.file.getvalue()
    assert "3.00   / 3.00 " in shown.file.getvalue()
    assert told_apart(1234.7, 1234.9) == ("1234.700", "1234.900")
    assert told_apart(float("nan"), 2.0) == ("unknown", "2.00")


def test_what_is_a_finding():
    fired = {"status": "evaluated", "fired": ("p",)}
    assert not is_finding(Decision(status="evaluated"))
    assert not is_finding(Decision(status="error"))
    assert is_finding(Decision(status="error", action="block"))
    assert is_finding(Decision(**fired, scores=(score(4),)))
    assert not is_finding(Decision(**fired, scores=(score(4, mode="shadow"),)))


def test_reasons_name_what_decided():
    assert reason(Decision(status="not_evaluated")) == "no policy applies to this prompt"
    assert reason(Decision(status="error", error="broken")) == "broken"
    assert reason(Decision(status="evaluated", action="block", warnings=("a plugin: no",))) == "a plugin: no"
    decided = Decision(status="evaluated", action="block", policy="p", fired=("p",), scores=(score(4),))
    assert reason(decided) == "p: evil scored 4.00 at layer 4, threshold 3.00"
