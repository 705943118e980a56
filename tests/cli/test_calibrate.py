"""`guardrail calibrate` and `guardrail calibrate drift`: files in, files out, exit codes 0, 1 and 2."""

import json

import pytest
from calibrating import POLICY, calibrate, copied, inputs, loaded, vectors

from guardrail import Guard
from guardrail.calibration.values import Calibration
from guardrail.cli import run
from guardrail.cli.calibrate.benign import read_benign
from guardrail.errors import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return inputs(tmp_path_factory.mktemp("calibrate"))


@pytest.fixture
def folder(made, tmp_path):
    return copied(made, tmp_path)


def test_a_calibration_is_written_with_its_evidence(folder, capsys):
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05", "--json", "--population", "made up") == 0
    answer = json.loads(capsys.readouterr().out)
    made = Calibration.load(folder / "calibration.json")
    assert answer["sha256"] == made.sha256
    assert answer["population"] == made.population == "made up"
    assert (answer["calibrated"], answer["held_out"]) == (200, 50)
    assert {one["name"] for one in answer["achieved"]} == {"evil", "humor"}
    assert answer["prompts_needed"]["at_least"] == 19
    assert answer["prompts_needed"]["for_interval"] > 200


def test_a_report_shows_thresholds_beside_prompts_that_show_the_trait(folder, tmp_path, capsys):
    rows = [{"prompt": f"{i} hurt them {'!' * i}", "labels": {"evil": i % 2}} for i in range(1, 24)]
    labelled, report = tmp_path / "labelled.jsonl", tmp_path / "report.html"
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--policies", str(folder / "policy.yaml"), "--fpr", "0.05", "--html", str(report))
    assert calibrate(folder, *options, "--against", str(labelled)) == 0
    out = capsys.readouterr().out
    assert f"{report}: written" in out
    assert "fired on the labelled prompts with the trait" in out
    assert "too few" not in out
    html = report.read_text()
    assert "Thresholds from 200 benign prompts, tried on 50 others" in html
    assert "12 labelled as showing evil" in html
    for text in ("policy no-malice", "all enforced policies", "[", "fires on prompts that show it"):
        assert text in html
    assert html.count("<figure>") == 2
    assert Calibration.load(folder / "calibration.json").sha256[:12] in html


def test_prompts_that_are_too_few_for_the_rate_are_said(folder, capsys):
    few = folder / "few.jsonl"
    few.write_text("".join((folder / "benign.jsonl").read_text().splitlines(keepends=True)[:30]))
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05", "--json", benign="few.jsonl") == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning.startswith("24 benign prompts are too few for a rate of 5 %: ")
    rules = ("--policies", str(folder / "policy.yaml"), "--force")
    assert calibrate(folder, *rules, "--fpr", "0.05", benign="few.jsonl") == 0
    printed = capsys.readouterr().out
    assert "warning: no-malice: 24 benign prompts are too few for a rate of 5 %: " in printed
    assert "warning: no-jokes: 0 of 24 benign prompts reach the threshold" in printed


def test_replies_have_at_most_as_many_tokens_as_asked_for(folder):
    tokens = []
    for count in ("1", "2"):
        assert calibrate(folder, *vectors(folder), "--fpr", "0.05", "--max-new-tokens", count, "--force") == 0
        tokens.append(Calibration.load(folder / "calibration.json").evidence.tokens)
    assert 1 <= tokens[1] - tokens[0] <= 3


def test_people_read_the_rates_and_what_a_sample_supports(folder, capsys):
    assert calibrate(folder, "--policies", str(folder / "policy.yaml"), "--fpr", "0.05") == 0
    out = capsys.readouterr().out
    assert "250 distinct benign prompts: 200 to calibrate on, 50 held out" in out
    assert "needs at least 19 to calibrate on" in out
    assert "no-malice" in out
    assert "all enforced policies" in out
    assert (folder / "policy.yaml").read_text() == POLICY.replace("AUDIT", str(folder / "audit.sqlite"))


def test_apply_shows_a_diff_and_writes_only_when_told(folder, capsys):
    path, before = folder / "policy.yaml", (folder / "policy.yaml").read_text()
    assert calibrate(folder, "--apply", str(path), "--fpr", "0.05", "--json") == 0
    diff = json.loads(capsys.readouterr().out)["diff"]
    assert [line for line in diff.splitlines() if line.startswith("-  ")] == ["-    threshold: 2.5"]
    assert path.read_text() == before
    assert calibrate(folder, "--apply", str(path), "--fpr", "0.05", "--write") == 2
    assert "replace it with --force" in capsys.readouterr().err
    assert path.read_text() == before
    assert calibrate(folder, "--apply", str(path), "--fpr", "0.05", "--write", "--force") == 0
    assert "written" in capsys.readouterr().out
    old, new = before.splitlines(), path.read_text().splitlines()
    assert [a for a, b in zip(old, new, strict=True) if a != b] == ["    threshold: 2.5"]
    Guard(*loaded(folder), str(path)).close()


def test_a_set_rate_is_shared_out_and_the_file_can_name_the_calibration(folder, capsys):
    path = folder / "policy.yaml"
    path.write_text(
        path.read_text().replace("2.5", "{fpr: 0.1}").replace("calibration: calibration.json\n", "")
    )
    options = ("--apply", str(path), "--set-fpr", "0.1", "--set-calibration", "--write", "--json")
    assert calibrate(folder, "--fpr", "0.05", *options) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["written"]
    rates = [one["threshold"]["fpr"] for one in answer["thresholds"]]
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.2)
    with Guard(*loaded(folder), str(path)) as guard:
        assert [rule.conditions[0].fpr for rule in guard.active.plan.rules] == rates
        assert guard.active.calibration.sha256 == answer["sha256"]


def test_a_file_of_rates_needs_no_change_and_says_so(folder, capsys):
    path = folder / "policy.yaml"
    path.write_text(path.read_text().replace("2.5", "{percentile: 95}"))
    assert calibrate(folder, "--apply", str(path), "--fpr", "0.05") == 0
    assert "no change: {fpr: ...} and {percentile: ...} follow the calibration" in capsys.readouterr().out


def test_a_score_that_belongs_to_another_calibration_is_a_warning(folder, capsys):
    path = folder / "policy.yaml"
    path.write_text(path.read_text().replace("calibration.json", "older.json"))
    assert calibrate(folder, "--apply", str(path), "--fpr", "0.05") == 0
    assert "names older.json, but these thresholds are for" in capsys.readouterr().err


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fpr", "0.001"], "needs at least 999 benign prompts, not 200"),
        (
            ["--fpr", "0.05", "--set-fpr", "0.001", "--policies", "POLICY"],
            "needs at least 999 benign prompts",
        ),
        (["--fpr", "0.05", "--set-fpr", "0.1"], "needs a policy file"),
        (["--fpr", "1.5"], "--fpr must be between 0 and 1"),
        (["--fpr", "0.05", "--width", "0"], "--width must be between 0 and 1"),
        (["--fpr", "0.05", "--held-out", "1"], "held-out share"),
        (["--write"], "need --apply"),
        (["--against", "FOLDER/benign.jsonl"], "benign.jsonl:1"),
        (["--html", "FOLDER/none/r.html"], "there is no such folder"),
        (["--fpr", "0.05", "--set-fpr", "0.1", "--policies", "POLICY"], "policies[1].threshold"),
        (["--apply", "POLICY", "--policies", "FOLDER/other.yaml"], "name different files"),
        (["--fpr", "0.05", "--out", "FOLDER/benign.jsonl"], "benign.jsonl exists"),
        (["--fpr", "0.05", "--out", "FOLDER/benign.jsonl", "--force"], "is not a calibration file"),
        (["--fpr", "0.05", "--out", "FOLDER/none/c.json"], "no such folder"),
        (["--fpr", "0.05", "--model", "demo"], "made for a model of 4 layers x 32"),
        (["--benign", "FOLDER/missing.jsonl"], "cannot be read"),
        (["--fpr", "0.05", "--chat-template", "builtin:plain"], "another model (different: chat_template)"),
    ],
)
def test_what_cannot_be_done_is_2_with_the_reason_and_writes_nothing(folder, options, message, capsys):
    given = [o.replace("POLICY", str(folder / "policy.yaml")).replace("FOLDER", str(folder)) for o in options]
    assert calibrate(folder, *vectors(folder), *given) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (folder / "calibration.json").exists()


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (['"a"', '"b"', '"c"'], [], "needs at least 99 benign prompts, not 3"),
        (['"a"'] * 120, [], "1 distinct prompt is too few"),
        (['"a"', "{"], [], "benign.jsonl:2: "),
        (['"a"', '"b"'], ["--slice", "bank=FOLDER/one.jsonl"], "one.jsonl: 1 distinct prompt is too few"),
        ([f'"{i}"' for i in range(60)], ["--fpr", "0.02"], "needs at least 49 benign prompts, not 48"),
    ],
)
def test_prompts_are_looked_at_before_a_model_is_loaded(tmp_path, lines, options, message, capsys):
    (tmp_path / "benign.jsonl").write_text("\n".join(lines))
    (tmp_path / "one.jsonl").write_text('"one"')
    given = [option.replace("FOLDER", str(tmp_path)) for option in options]
    files = ["--benign", str(tmp_path / "benign.jsonl"), "--out", str(tmp_path / "c.json")]
    assert run(["calibrate", "--model", str(tmp_path), "--vectors", "demo", *files, *given]) == 2
    assert message in capsys.readouterr().err


def test_what_was_read_is_kept_where_only_the_thresholds_cannot_be_found(folder, capsys):
    path = folder / "policy.yaml"
    text = path.read_text()
    path.write_text(text.replace("2.5", "{fpr: 0.0001}"))
    assert calibrate(folder, "--apply", str(path), "--fpr", "0.05", "--set-fpr", "0.1", "--write") == 2
    err = capsys.readouterr().err
    assert "no-jokes: its share of the set's rate is" in err
    assert "calibration.json: written; only the thresholds of the policies are missing" in err
    assert Calibration.load(folder / "calibration.json").evidence.calibrated == 200
    assert path.read_text() == text.replace("2.5", "{fpr: 0.0001}")


def test_no_prompts_and_no_vectors_are_2(folder, capsys):
    assert run(["calibrate"]) == 2
    assert "--benign" in capsys.readouterr().err
    assert calibrate(folder) == 2
    assert "no vectors" in capsys.readouterr().err


def test_bad_prompts_are_2_with_every_line_unless_they_are_skipped(folder, capsys):
    good = (folder / "benign.jsonl").read_text().splitlines()
    bad = [
        '"  "',
        "{",
        '{"messages": []}',
        "7",
        '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
    ]
    (folder / "benign.jsonl").write_text("\n".join([*good, *bad, *good[:10]]) + "\n")
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05") == 2
    err = capsys.readouterr().err
    assert [f"benign.jsonl:{number}:" in err for number in range(251, 256)] == [True] * 5
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05", "--skip-invalid", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["prompts"], answer["skipped"], answer["duplicates"]) == (250, 5, 10)


def test_a_system_message_is_put_before_every_benign_prompt(folder, capsys):
    hashes = []
    for more in ([], ["--system", "Be brief."]):
        given = ["--model", str(folder / "model"), "--out", str(folder / "c.json"), "--force"]
        rest = ["--input", str(folder / "benign.jsonl"), "--conversations", "0", "--fpr", "0.05", "--json"]
        assert run(["calibrate", *given, *rest, *vectors(folder), *more]) == 0
        hashes.append(json.loads(capsys.readouterr().out)["sha256"])
    assert hashes[0] != hashes[1]
    own = {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}
    with (folder / "benign.jsonl").open("a") as file:
        file.write(json.dumps(own) + "\n")
    assert calibrate(folder, *vectors(folder), "--system", "Be brief.") == 2
    assert "benign.jsonl:251: has a system message; leave out --system" in capsys.readouterr().err


# --- files of prompts ---------------------------------------------------------------------------------


def test_text_and_csv_hold_prompts_too(tmp_path):
    (tmp_path / "a.txt").write_text("first line\r\n\nthird, with a comma\n")
    (tmp_path / "a.csv").write_text('id,prompt,label\n1,"one, two",safe\n2,"over\ntwo lines",safe\n3,,safe\n')
    text, table = read_benign(tmp_path / "a.txt"), read_benign(tmp_path / "a.csv")
    assert text.prompts == [
        (f"{tmp_path}/a.txt:1", "first line"),
        (f"{tmp_path}/a.txt:3", "third, with a comma"),
    ]
    assert [content for _, content in table.prompts] == ["one, two", "over\ntwo lines", ""]
    assert [name.rpartition(":")[2] for name, _ in table.prompts] == ["2", "4", "5"]


def test_a_table_without_prompts_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,x\n")
    with pytest.raises(ConfigError, match="no column `prompt`; columns: id, text"):
        read_benign(tmp_path / "a.csv")


def test_bytes_that_are_no_text_have_their_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe\n")
    found = read_benign(tmp_path / "a.txt")
    assert (len(found.prompts), found.problems) == (1, [f"{tmp_path}/a.txt:2: not UTF-8 (byte 1)"])


# --- drift --------------------------------------------------------------------------------------------


def served(folder, prompts):
    with Guard(*loaded(folder), str(folder / "policy.yaml")) as guard:
        guard.check_many(prompts)


def drifts(folder, *more):
    files = ["--audit", str(folder / "audit.sqlite"), "--calibration", str(folder / "calibration.json")]
    return run(["calibrate", "drift", *files, *more])


def test_live_traffic_like_the_benign_prompts_is_0_and_other_traffic_is_1(folder, capsys):
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05", "--held-out", "0") == 0
    benign = [json.loads(line) for line in (folder / "benign.jsonl").read_text().splitlines()]
    served(folder, benign)
    capsys.readouterr()
    assert drifts(folder, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["records"], answer["drifted"]) == (250, False)
    assert [rate["policy"] for rate in answer["rates"]] == ["no-malice", "no-jokes"]
    (folder / "audit.sqlite").unlink()
    served(folder, [f"{i} {i * i}: 日本語 {'!' * (i % 40)}" for i in range(300)])
    assert drifts(folder, "--record") == 1
    out = capsys.readouterr().out
    (certificate,) = Calibration.load(folder / "calibration.json").certificates
    assert certificate.drift > 0.2
    assert "DRIFTED" in out
    assert "live scores have drifted" in out


def test_a_log_under_another_calibration_is_2(folder, capsys):
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05", "--held-out", "0") == 0
    served(folder, ["hello there"])
    assert drifts(folder, "--record") == 2
    assert "no trait has 200 live scores" in capsys.readouterr().err
    assert drifts(folder) in (0, 1)
    assert "too few" in (out := capsys.readouterr().out)
    assert ("too early to say" in out) != ("have drifted" in out)
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05", "--held-out", "0.1", "--force") == 0
    capsys.readouterr()
    assert drifts(folder) == 2
    assert "no record was scored with this calibration (1 with another)" in capsys.readouterr().err


def test_a_log_of_other_vectors_and_no_log_are_2(folder, capsys):
    assert calibrate(folder, *vectors(folder), "--fpr", "0.05") == 0
    assert drifts(folder) == 2
    assert "audit.sqlite" in capsys.readouterr().err
    served(folder, ["hello there"])
    assert run(["calibrate", "drift", "--audit", str(folder / "audit.sqlite")]) == 2
    assert "no record was scored with this calibration's vectors" in capsys.readouterr().err
