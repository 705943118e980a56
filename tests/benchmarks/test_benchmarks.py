"""The project's own benchmarks: runner, baseline, and a cut-down dry run of the GPU suite."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import baseline, gpu, profiles, suite
from benchmarks.baseline import Baseline
from benchmarks.cases import engine_cases
from benchmarks.conftest import PAIRS, _timings
from benchmarks.lab import LEAST_PAIRS, OutOfTime, Session
from benchmarks.readme import README, filled
from benchmarks.runner import COUPLES, WrongResult, pooled, row
from benchmarks.subjects import subject
from guardrail.bench import results
from guardrail.bench.cases import Case
from guardrail.bench.clocks import Laps
from guardrail.bench.pairs import Side
from guardrail.bench.ratios import Interval, Timings
from guardrail.bench.results import Point, Report, measured, not_measured
from guardrail.testing import tiny_model, tiny_tokenizer

CASES = [
    *("allow, first token", "block at the middle", "check", "allow", "response stage, every token"),
    *("steer one layer", "steer all layers", "allow, first token, by hooks alone"),
    *("allow, by hooks alone", "steer one layer, by hooks alone", "after close"),
]


@pytest.fixture(scope="module")
def tiny():
    return subject("tiny", tiny_model, tiny_tokenizer(), prompt=6, new_tokens=3)


@pytest.mark.parametrize(
    "path", sorted(Path(baseline.__file__).parent.glob("*.py")), ids=lambda path: path.stem
)
def test_every_module_can_be_imported(path):
    """Some run for minutes and have no other test."""
    import_module(f"benchmarks.{path.stem}")


# --- runner -------------------------------------------------------------------------------------------


def test_every_case_of_the_engine_does_what_it_says(tiny):
    found = [row(tiny, case, pairs=2) for case in engine_cases(tiny)]
    assert [r.name.removeprefix("tiny: ") for r in found] == CASES


def test_the_pairs_of_several_couples_are_pooled_and_roles_change(tiny):
    now, models, built = [0.0], [], iter((1.0, 1.1, 1.1, 1.2))

    def working(ms):
        return lambda: now.__setitem__(0, now[0] + ms)

    def clock(call):
        start = now[0]
        call()
        return Laps(now[0] - start)

    def cases(couple):
        models.append(couple.model is tiny.model)
        guarded, bare = working(next(built)), working(1.0)
        return [Case(name="c", guarded=guarded, bare=bare, holds=lambda a, b: True)]

    (found,) = pooled(lambda: tiny, cases, pairs=60, clock=clock, say=lambda _: None)
    assert (found.pairs, found.name, COUPLES) == (60, "tiny: c", 4)
    assert found.ratio.median == pytest.approx(1.1)
    assert models == [False, True, False, True]


def test_a_wrong_result_is_not_timed(tiny):
    case = Case(name="wrong", guarded=lambda: 1, bare=lambda: 2, holds=lambda a, b: a == b)
    with pytest.raises(WrongResult, match="tiny: wrong"):
        row(tiny, case, pairs=1)


# --- baseline -----------------------------------------------------------------------------------------


def interval(low, high):
    return Interval(median=(low + high) / 2, low=low, high=high)


KNOWN = Baseline(ratios={"a": interval(1.00, 1.02)})


@pytest.mark.parametrize(
    ("low", "high", "change"),
    [(1.031, 1.10, "regressed"), (1.029, 1.10, "no worse"), (0.5, 0.6, "no worse"), (1.0, 1.02, "no worse")],
)
def test_a_ratio_has_regressed_when_its_interval_lies_above_the_old_one(low, high, change):
    assert KNOWN.change("a", interval(low, high)) == change
    assert KNOWN.change("b", interval(low, high)) == "not in the baseline"


def test_times_alone_are_no_regression():
    slow_machine = measured("a", Timings((1010.0,) * 9, (1000.0,) * 9), None)
    assert KNOWN.regressions([slow_machine]) == []
    assert len(KNOWN.regressions([measured("a", Timings((1.5,) * 9, (1.0,) * 9), None)])) == 1


def test_the_comparison_exits_with_1_on_a_regression(tmp_path, capsys):
    better = Report(cases=(measured("a", Timings((1.0,) * 9, (1.0,) * 9), None), not_measured("b", None, "")))
    worse = Report(cases=(measured("a", Timings((1.2,) * 9, (1.0,) * 9), None),))
    results.write(better, tmp_path / "better.json")
    results.write(worse, tmp_path / "worse.json")
    file = ("--baseline", str(tmp_path / "baseline.json"))
    assert baseline.main(["write", str(tmp_path / "better.json"), *file]) == 0
    assert baseline.main(["compare", str(tmp_path / "better.json"), *file]) == 0
    assert baseline.main(["compare", str(tmp_path / "worse.json"), *file]) == 1
    assert "a: 1.200 (1.200 to 1.200), baseline 1.000" in capsys.readouterr().out


def test_the_committed_baseline_knows_every_case_of_every_model():
    known = baseline.load()
    wanted = {f"{model}: {case}" for model in ("12 x 64", "12 x 768", "demo") for case in CASES}
    assert wanted <= set(known.ratios)
    assert known.rule == baseline.RULE


class FakeBenchmark:
    """What `pedantic` does, on a machine whose calls take known times."""

    disabled = False

    def __init__(self):
        self.times = []

    def pedantic(self, target, setup, teardown, rounds):
        for _ in range(rounds):
            setup()
            target()
            teardown()
            self.times.append(0.002)

    @property
    def stats(self):
        return type("Stats", (), {"stats": type("Data", (), {"data": self.times})})


def test_pytest_benchmark_times_pairs_in_alternating_order():
    order = []
    case = Case(
        name="c", guarded=lambda: order.append("g"), bare=lambda: order.append("b"), holds=lambda a, b: True
    )
    timings = _timings(FakeBenchmark(), case)
    assert len(timings.guarded) == len(timings.bare) == PAIRS
    assert "".join(order[4:12]) == "bggbbggb"
    assert set(timings.guarded) == {2.0}


# --- the GPU suite ------------------------------------------------------------------------------------

CUT = replace(
    suite.TINY,
    others=(),
    base=Point(8, 1, 3),
    prompts=(16,),
    batches=(),
    policies=(1,),
    many=8,
    crowd=2,
    seconds=suite.TINY.seconds[:1],
    tokens=3,
)


@pytest.fixture
def cut(monkeypatch):
    """The dry run, cut down."""
    monkeypatch.setattr(gpu, "TINY", CUT)
    monkeypatch.setattr("benchmarks.lab.WARM_UP", 1)
    monkeypatch.setattr("benchmarks.lab.LEAST_PAIRS", 1)
    return ["--device", "cpu", "--tiny", "--pairs", "2", "--row-seconds", "0.01"]


def now_plus(monkeypatch, seconds):
    monkeypatch.setattr(gpu, "START", gpu.perf_counter() + seconds)


@pytest.mark.slow
def test_a_dry_run_measures_every_row_and_writes_at_most_eight_files(cut, monkeypatch, tmp_path, capsys):
    now_plus(monkeypatch, 0)
    assert gpu.main([*cut, "--out", str(tmp_path)]) == 0
    report = results.read(tmp_path / "gpu-dry-run.json")
    assert report.not_measured == ()
    assert [r.name for r in report.cases] == [r.name for r in suite.planned(CUT)]
    assert len(list(tmp_path.iterdir())) <= 8
    seen = json.loads((tmp_path / "gpu-dry-run-profile.json").read_text())
    assert seen["decoding"]["same_operators"]
    assert seen["decoding"]["guarded"]["operators"] > 100
    assert seen["prefill"]["difference"]["aten::addmm"] == len(suite.TINY.main.read)
    assert any("profiler" in note and "equals" in note for note in report.notes)
    assert (tmp_path / "gpu-dry-run-prefill.json.gz").stat().st_size > 1000


def test_a_run_that_is_out_of_time_says_so_in_its_rows(cut, monkeypatch, tmp_path):
    now_plus(monkeypatch, 0)
    assert gpu.main([*cut, "--minutes", "0", "--out", str(tmp_path)]) == 0
    report = results.read(tmp_path / "gpu-dry-run.json")
    assert len(report.not_measured) == len(report.cases) > 10
    assert {r.note for r in report.cases} == {"no time left"}


def test_a_run_that_is_interrupted_keeps_what_is_done(cut, monkeypatch, tmp_path):
    def stopped(self, made, job):
        raise KeyboardInterrupt

    now_plus(monkeypatch, 0)
    monkeypatch.setattr(gpu.Suite, "_profile", stopped)
    assert gpu.main([*cut, "--out", str(tmp_path)]) == 1
    report = results.read(tmp_path / "gpu-dry-run.json")
    assert [r.metric for r in report.cases if r.ratio] == ["first token", "per token", "reply"]
    assert report.notes[0] == "interrupted"


def test_corners_that_are_too_large_are_skipped_and_listed(cut, monkeypatch, tmp_path):
    now_plus(monkeypatch, 0)
    huge = replace(CUT, seconds=(), prompts=(10**6,), policies=())
    monkeypatch.setattr(gpu, "TINY", huge)
    for part in ("_must", "_without_waiting", "_following", "_against", "_closed"):
        monkeypatch.setattr(suite, part, lambda scale: iter(()))
    monkeypatch.setattr(gpu.Suite, "_profile", lambda *a: None)
    assert gpu.main([*cut, "--out", str(tmp_path)]) == 0
    (only,) = results.read(tmp_path / "gpu-dry-run.json").cases
    assert only.note == "too large: the shape takes 16384 tokens"
    assert results.read(tmp_path / "gpu-dry-run.json").notes == (f"skipped: {only.name}: {only.note}",)


def test_a_wrong_result_fails_its_row_and_the_run_goes_on(cut, monkeypatch, tmp_path):
    def wrong(lab, job):
        raise WrongResult("other tokens")

    now_plus(monkeypatch, 0)
    few = (suite._job("allow", wrong, ("first token",), CUT.base, 1),)
    monkeypatch.setattr(gpu, "all_jobs", lambda scale: [replace(job, shape=CUT.main) for job in few])
    monkeypatch.setattr(gpu.Suite, "_profile", lambda *a: None)
    assert gpu.main([*cut, "--out", str(tmp_path)]) == 0  # a dry run's goals mean nothing
    found = {r.name: r for r in results.read(tmp_path / "gpu-dry-run.json").cases}
    first = found[f"tiny: allow: first token ({CUT.base})"]
    assert (first.verdict, first.note) == ("fail", "wrong result: other tokens")


def test_without_a_device_nothing_is_measured(tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


def timer(seconds):
    def clock(call):
        call()
        return Laps(seconds * 1e3)

    return clock


@pytest.mark.parametrize(
    ("must", "seconds", "expected"),
    [(True, 1.0, 60), (False, 1.0, LEAST_PAIRS), (False, 0.1, 50), (False, 0.01, 60)],
)
def test_rows_that_need_not_be_shown_make_fewer_pairs(must, seconds, expected):
    asked = Session(
        device="cpu", dtype="float32", clock=timer(seconds), deadline=1e12, pairs=60, row_seconds=5.0
    )
    assert asked.rounds([Side(lambda: None)], must) == expected


def test_what_would_end_too_late_is_not_begun():
    asked = Session(
        device="cpu",
        dtype="float32",
        clock=timer(1.0),
        deadline=gpu.perf_counter() + 30,
        pairs=60,
        row_seconds=5.0,
    )
    with pytest.raises(OutOfTime):
        asked.rounds([Side(lambda: None)], must=True)


def test_the_suite_has_every_row_that_must_be_shown_and_those_first():
    rows = suite.planned(suite.REAL)
    assert len({r.name for r in rows}) == len(rows)
    goals = {r.name.split(": ", 1)[1].split(" (")[0]: str(r.goal) for r in rows if r.goal}
    assert goals == {
        "allow: first token": "<= 1.01, +0.2 ms",
        "allow: per token": "<= 1.002",
        "allow, by hooks alone: first token": "<= 1.01, +0.2 ms",
        "block at the middle: decision": "<= 0.6",
        "many policies against one: first token": "<= 1.005",
        "steer one layer: per token": "<= 1.01",
        "steer all layers: per token": "<= 1.05",
        "batch: throughput": ">= 0.99",
        "against prompt-guard-86m: share": "<= 0.05",
        "against llama-guard-1b: share": "<= 0.02",
        "after close: per token": "1.00 within",
    }
    jobs = suite.all_jobs(suite.REAL)
    assert [job.must for job in jobs] == sorted((job.must for job in jobs), reverse=True)
    assert {job.shape.name.split(" ")[0] for job in jobs} == {
        *("Qwen2.5-0.5B", "Qwen2.5-7B", "Qwen2.5-14B", "Llama-3.1-8B"),
    }
    points = {job.point for job in jobs if job.shape is suite.REAL.main}
    assert {p.prompt for p in points} >= {128, 512, 8192}
    assert {p.batch for p in points} >= {1, 32, 64}
    assert {p.policies for p in points} >= {1, 8, 256}


# --- profiles -----------------------------------------------------------------------------------------


def event(name, start, end, on_device=False):
    return profiles.Event(name, on_device, start, end)


def test_a_trace_counts_kernels_gaps_and_what_the_host_waits_for():
    events = [
        event("aten::mm", 0, 5),
        event("cudaLaunchKernel", 1, 2),
        event("cudaStreamSynchronize", 3, 4),
        event("gemm", 10, 30, True),
        event("add", 20, 40, True),
        event("Memcpy DtoH (Device -> Pinned)", 45, 50, True),
        event("late", 100, 110, True),
    ]
    found = profiles.traced(events)
    assert (found.operators, found.launches, found.kernels) == (1, 1, 4)
    assert found.host_waits == {"cudaStreamSynchronize": 1, "Memcpy DtoH (Device -> Pinned)": 1}
    assert (found.span_us, found.busy_us, found.gaps, found.gaps_us) == (100, 45, 1, 50)


def test_operators_in_another_order_are_not_the_same():
    one, two = event("aten::a", 0, 1), event("aten::b", 1, 2)
    assert profiles.compared([one, two], [one, two]).same_operators
    swapped = [replace(two, start=0.0), replace(one, start=1.0)]
    assert not profiles.compared([one, two], swapped).same_operators
    assert profiles.compared([one, two], [one]).difference == {"aten::b": 1}


# --- the page -----------------------------------------------------------------------------------------


def test_the_tables_of_the_readme_are_those_of_the_results():
    text = README.read_text(encoding="utf-8")
    assert filled(text) == text


def test_a_gpu_row_without_a_measurement_says_so():
    rows = results.read(README.parent / "results" / "gpu.json").cases
    assert {str(Point(512, 1, 8)) in r.name for r in rows} == {True, False}
    assert all((r.ratio is None) == (r.verdict == "not measured") for r in rows)
