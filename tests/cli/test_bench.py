"""`guardrail bench`: exit codes, JSON, the page, Ctrl-C, and refusals before any long work."""

import json
import re

import pytest

from guardrail.bench import memory, results, settings
from guardrail.bench.ratios import Timings
from guardrail.bench.results import Point, Row, Two, measured, not_measured
from guardrail.bench.run import Run
from guardrail.bench.tables import cells, markdown
from guardrail.cli import run
from guardrail.cli.bench import command
from guardrail.errors import ConfigError
from guardrail.report.bench import figures, page, swept

INTERVAL = {"median", "low", "high"}


class NoModel:
    """In place of a couple: what is measured is made up."""

    def close(self):
        self.closed = True


def made_up(slow=1.05, spread=0.0, prompts=(128,)):
    """Rows as a run gives them: every pair is `slow` times the bare one, give or take the spread."""
    for prompt in prompts:
        for metric in ("first token", "per token"):
            ratios = [slow + spread * (-1) ** (i % 7 < 3) for i in range(60)]
            yield measured(
                f"allow: {metric} ({Point(prompt, 1, 4)})",
                Timings(tuple(10.0 * r for r in ratios), (10.0,) * 60),
                case="allow",
                metric=metric,
                point=Point(prompt, 1, 4),
                peak_mib=Two(guarded=10.0, bare=9.0),
            )


@pytest.fixture
def timed(monkeypatch):
    """The verb with made-up times; the settings that it ends up with are kept."""
    seen = []

    def use(**changes):
        def rows(self):
            seen.append(self.settings)
            for row in made_up(**changes):
                goal = self.settings.goal(row.case, row.metric)
                yield row if goal is None else judged(row, goal)

        monkeypatch.setattr(Run, "rows", rows)
        return seen

    monkeypatch.setattr(command, "load_couple", lambda *a: NoModel())
    return use


def judged(row, goal):
    from dataclasses import replace

    return replace(row, goal=goal, verdict=goal.verdict(row.ratio, row.added_ms))


def verb(*arguments):
    return run(["bench", *arguments])


def test_without_a_gate_whatever_is_measured_is_a_success(timed, capsys):
    timed(slow=3.0)
    assert verb() == 0
    assert "prompt 128, batch 1, 4 policies" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("slow", "spread", "gate", "code", "word"),
    [
        (1.02, 0.0, ("--max-overhead-pct", "5"), 0, "pass"),
        (1.08, 0.0, ("--max-overhead-pct", "5"), 1, "fail"),
        (1.05, 0.03, ("--max-overhead-pct", "5"), 1, "inconclusive"),
        (1.02, 0.0, ("--max-overhead-ms", "0.5"), 0, "pass"),
        (1.08, 0.0, ("--max-overhead-ms", "0.5"), 1, "fail"),
        (1.02, 0.0, ("--max-overhead-pct", "5", "--max-overhead-ms", "0.1"), 1, "fail"),
    ],
)
def test_a_gate_passes_fails_or_is_undecided(timed, capsys, slow, spread, gate, code, word):
    timed(slow=slow, spread=spread)
    assert verb(*gate, "--json") == code
    assert {row["verdict"] for row in json.loads(capsys.readouterr().out)["cases"]} == {word}


def test_ctrl_c_prints_what_is_done_and_is_no_success(monkeypatch, capsys):
    ended = NoModel()

    def rows(self):
        yield next(made_up())
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_couple", lambda *a: ended)
    monkeypatch.setattr(Run, "rows", rows)
    assert verb("--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in found["cases"]] == ["first token"]
    assert found["notes"][-1] == "interrupted: this is what was measured"
    assert ended.closed


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(settings, "available", lambda device: 1000)
    monkeypatch.setattr(command, "load_couple", lambda *a: pytest.fail("loaded"))
    assert verb() == 2
    assert "not enough memory: demo needs about" in capsys.readouterr().err


def test_with_memory_for_one_copy_the_output_says_what_bare_is(timed, monkeypatch, capsys):
    timed()
    demo = memory.sizes_of_pretrained("demo", {})
    free = int(1.5 * settings.HEADROOM * demo.weights + demo.working(Point(128, 1, 1), 32))
    monkeypatch.setattr(settings, "available", lambda device: free)
    assert verb() == 0
    assert "the bare model is the same one, with the guard taken off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "./nowhere"), "no policies were given"),
        (("--policies", "nowhere.yaml"), "nowhere.yaml"),
        (("--prompts", "many"), "whole numbers"),
        (("--prompts", "100000"), "the longest prompt"),
        (("--device", "tpu"), "unknown device `tpu`"),
        (("--cases", "alow"), "unknown case `alow`"),
        (("--against", "magic"), "unknown alternative `magic`"),
        (("--new-tokens", "1"), "at least 2 new tokens"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(command, "load_couple", lambda *a: pytest.fail("loaded"))
    assert verb(*arguments) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_model_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(command, "load_couple", lambda *a: pytest.fail("loaded"))
    policies = tmp_path / "p.yaml"
    rule = "{id: a, trait: evil, layer: 2, threshold: {raw: 1.0}, action: block}"
    policies.write_text(f"version: 1\nvectors: demo\npolicies:\n  - {rule}\n")
    assert verb("--model", str(tmp_path / "nothing-here"), "--policies", str(policies)) == 2
    assert "nothing-here cannot be loaded" in capsys.readouterr().err


def test_a_broken_policy_file_is_said_before_a_model_is_loaded(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "load_couple", lambda *a: pytest.fail("loaded"))
    broken = tmp_path / "p.yaml"
    broken.write_text("version: 1\npolicies: []\nplicies: []\n")
    assert verb("--policies", str(broken)) == 2
    assert "p.yaml:3" in capsys.readouterr().err


def test_options_become_settings(timed):
    seen = timed()
    arguments = ("--prompts", "16, 32", "--batches", "2", "--cases", "allow,block", "--pairs", "7")
    assert verb(*arguments, "--policy-counts", "1,8", "--against", "all", "--device", "cpu") == 0
    (found,) = seen
    assert (found.prompts, found.batches, found.policy_counts) == ((16, 32), (2,), (1, 8))
    assert (found.cases, found.pairs, found.device) == (("allow", "block"), 7, "cpu")
    assert found.against == settings.AGAINST


@pytest.mark.parametrize(
    ("arguments", "pairs", "warm_up", "told"),
    [((), 20, 2, "20 pairs per case"), (("--full",), 60, 5, ""), (("--full", "--pairs", "99"), 99, 5, "")],
)
def test_a_first_look_takes_few_pairs_and_says_so(timed, capsys, arguments, pairs, warm_up, told):
    seen = timed()
    assert verb(*arguments) == 0
    assert [(found.pairs, found.warm_up) for found in seen] == [(pairs, warm_up)]
    out = capsys.readouterr().out
    assert told in out
    assert ("--full measures more" in out) == bool(told)


def test_the_built_in_model_is_measured_for_real(capsys, tmp_path):
    out = tmp_path / "found.json"
    arguments = ("--prompts", "16", "--new-tokens", "3", "--pairs", "2", "--warm-up", "1", "--cases", "allow")
    assert verb(*arguments, "--max-overhead-pct", "100000", "--json", "--out", str(out)) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in found["cases"]] == ["first token", "per token", "reply"]
    for row in found["cases"]:
        assert set(row["ratio"]) == set(row["added_ms"]) == INTERVAL
        assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    assert found["machine"]["device"] == "cpu"
    assert json.loads(out.read_text())["cases"] == found["cases"]


# --- results and pages --------------------------------------------------------------------------------


def test_a_report_survives_its_json_file(tmp_path):
    goal = settings.Goal(value=1.03)
    rows = [*made_up(), measured("a", Timings((2.0, 2.0), (1.0, 1.0)), goal), not_measured("b", None, "why")]
    written = results.report(rows, "cpu", "wall", ["a note"])
    results.write(written, tmp_path / "r.json")
    assert results.read(tmp_path / "r.json") == written
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert written.not_measured == ("b",)


def test_the_ratio_of_throughputs_is_inverted():
    row = measured("t", Timings((2.0, 2.0), (1.0, 1.0)), inverted=True)
    assert (row.ratio.median, row.added_ms.median) == (0.5, 1.0)


def test_what_was_not_measured_has_no_numbers():
    line = cells(not_measured("b", settings.Goal(value=1.03), "no device"))
    assert line == ("b", "not measured", "", "", "", "<= 1.03", "no device")
    assert markdown([]).count("\n") == 1


def test_the_page_has_a_line_for_every_row_and_a_curve_for_every_sweep():
    rows = [*made_up(prompts=(128, 256, 512)), not_measured("b", None, "<why>")]
    text = page(results.report(rows, "cpu", "wall", ["interrupted"])).html()
    assert text.count("<figure>") == 2
    assert len(re.findall("<tr", text)) == 1 + len(rows)
    assert "&lt;why&gt;" in text
    assert "interrupted" in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text).split("<table")[1]


def test_curves_follow_one_factor_from_the_base_point():
    rows = [*made_up(prompts=(128, 64)), Row(name="x", verdict="no goal", point=Point(128, 8, 4), case="c")]
    assert {name: [at for at, _ in found] for name, found in swept(rows, "prompt").items()} == {
        "allow: first token": [64, 128],
        "allow: per token": [64, 128],
    }
    assert figures([]) == []


def test_without_the_extra_the_page_is_refused_before_the_run(timed, monkeypatch, capsys, tmp_path):
    seen = timed()
    monkeypatch.setattr("guardrail.report.find_spec", lambda name: None)
    assert verb("--html", str(tmp_path / "p.html")) == 2
    assert "persona-guardrail[report]" in capsys.readouterr().err
    assert seen == []


def test_a_page_is_written_where_it_is_asked_for(timed, tmp_path):
    timed()
    assert verb("--html", str(tmp_path / "sub" / "p.html")) == 0
    assert (tmp_path / "sub" / "p.html").read_text().startswith("<!doctype html>")


def test_the_gates_need_allowed_prompts():
    with pytest.raises(ConfigError, match="add `allow`"):
        settings.Settings(model="m", policies={}, cases=("steer",), gate=settings.Goal(value=1.0))
