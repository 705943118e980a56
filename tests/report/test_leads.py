"""What every report begins with, its verdicts and warnings."""

import re
from dataclasses import replace

import pytest
from worlds import calibration

from guardrail.bench.goals import Goal
from guardrail.bench.machine import Machine
from guardrail.bench.ratios import Interval
from guardrail.bench.results import Report, Row
from guardrail.calibration.evidence import Achieved, Evidence
from guardrail.evaluation.results import Detection
from guardrail.report import leads
from guardrail.report.drawing import new, style, svg, themed
from guardrail.report.page import Cell, Drawn, Lead, Page, Section, Table, percent, points
from guardrail.statistics.intervals import Estimate
from guardrail.train.shift.results import Descent, LayerShift, Shift, TraitShift

IDLE = Machine(system="Linux", processor="p", cores=2, threads=1, device="cpu", load=1.1)


def row(case, median, low, high, verdict="no goal", goal=None):
    ratio = Interval(median=median, low=low, high=high)
    return Row(
        name=f"{case}: reply", case=case, metric="reply", ratio=ratio, verdict=verdict, goal=goal, pairs=30
    )


def test_what_is_not_shown_is_neither_good_nor_bad():
    layer = LayerShift(layer=1, shift=Estimate(1.0, -1.0, 3.0), own=None, spread=1.0, asked=None)
    evil = TraitShift(trait="evil", layer=1, prompts=20, layers=(layer,), overlaps=())
    still = Shift(
        base="b",
        tuned="runs/t",
        since="b",
        descent=Descent(kind="adapter", weights="w"),
        vectors_sha256="",
        prompts_sha256="",
        traits={"evil": evil},
    )
    assert leads.shift([still]) == Lead("t is not shown to have moved any trait.", "")
    moved = replace(layer, shift=Estimate(2.0, 1.0, 3.0), spread=100.0)
    lead = leads.shift([replace(still, traits={"evil": replace(evil, layers=(moved,))})])
    assert lead == Lead("t has moved evil up by 0.02 SDs.", "warn")


def test_a_benchmark_begins_with_what_the_guard_costs():
    goal = Goal(value=1.05)
    rows = (row("allow", 1.012, 1.005, 1.02, "pass", goal), row("block", 0.61, 0.6, 0.62, "pass", goal))
    lead = leads.bench(Report(cases=rows, machine=IDLE))
    assert "allowed request takes 1.2 % more time than the bare model (95 %: +0.5 to +2.0 %" in lead.text
    assert "blocked request takes 39.0 % less time" in lead.text
    assert lead.tone == "good"
    missed = leads.bench(Report(cases=(*rows, row("steer", 1.4, 1.3, 1.5, "fail", goal))))
    assert missed.tone == "bad"
    assert "Goals missed: steer: reply" in missed.text
    assert leads.bench(Report(cases=())).text == "Nothing was measured."


def test_a_busy_machine_and_a_small_sample_are_warned_about():
    assert leads.busy(IDLE) == []
    assert leads.busy(None) == []
    assert "load of 3.2" in leads.busy(replace(IDLE, load=3.2))[0]
    assert leads.few([("prompts", 500), ("rows", 0)]) == []
    assert "12 prompts" in leads.few([("prompts", 12)])[0]


@pytest.mark.parametrize(
    ("auroc", "text", "verdict"),
    [
        (Estimate(0.9, 0.85, 0.95), Estimate(0.7, 0.6, 0.8), "beats the text"),
        (Estimate(0.9, 0.75, 0.95), Estimate(0.7, 0.6, 0.8), "as the text does"),
        (Estimate(0.6, 0.55, 0.65), Estimate(0.8, 0.7, 0.9), "below the text"),
        (Estimate(0.6, 0.5, 0.7), Estimate(0.4, 0.3, 0.45), "not shown to detect"),
        (Estimate(0.9, 0.85, 0.95), None, "detects"),
    ],
)
def test_a_probe_is_judged_by_its_interval(auroc, text, verdict):
    found = dict.fromkeys(Detection.__slots__) | {"auroc": auroc, "text_baseline_auroc": text}
    assert leads.detects(Detection(**found)) == verdict
    assert leads.tone_of(verdict) in ("good", "warn", "bad")


def tried(fired, low, high, fpr=0.01):
    return Achieved(kind="trait", name="evil", fpr=fpr, n=400, fired=fired, low=low, high=high)


@pytest.mark.parametrize(
    ("one", "verdict", "tone"),
    [
        (tried(20, 0.03, 0.07), "fires too often", "bad"),
        (tried(0, 0.0, 0.009), "keeps the rate", "good"),
        (tried(4, 0.003, 0.03), "cannot tell", ""),
        (tried(4, 0.003, 0.03, None), "", ""),
    ],
)
def test_a_threshold_is_judged_by_the_interval_of_its_rate(one, verdict, tone):
    assert leads.rate(one) == verdict
    assert leads.tone_of(verdict) == tone


def test_a_calibration_begins_with_whether_its_thresholds_keep_their_rates():
    found = calibration()
    assert leads.calibration(found).tone == "warn"
    evidence = Evidence(
        source_sha256="0", prompts=600, duplicates=0, skipped=0, calibrated=500, held_out=100,
        seed=0, conversations=0, tokens=0, achieved=(tried(20, 0.03, 0.07), tried(4, 0.003, 0.03)),
    )  # fmt: skip
    lead = leads.calibration(replace(found, evidence=evidence))
    assert lead.text.startswith("Thresholds from 500 benign prompts, tried on 100 others. 1 of 2 fire more")
    assert lead.tone == "bad"
    kept = leads.calibration(replace(found, evidence=replace(evidence, achieved=(tried(0, 0, 0.009),))))
    assert (kept.tone, "None of 1 is shown to fire more often" in kept.text) == ("good", True)


def test_a_page_begins_with_its_lead_and_follows_the_colours_of_the_reader():
    with style():
        figure = new(3, 2)
        figure.subplots().set(title="a title", xlabel="x")
        drawn = svg(figure, "a figure")
    block = [Drawn(drawn), Table(("a", "b"), [[Cell("<b>"), Cell("good", tone="good")]])]
    page = Page(title="T", subtitle="s", sections=[Section("One", block)], lead=Lead("It <works>.", "good"))
    html = page.html()
    assert html.index("It &lt;works&gt;.") < html.index("<svg")
    assert "prefers-color-scheme: dark" in html
    assert "&lt;b&gt;" in html
    body = html[html.index("<svg") : html.index("</svg>")]
    assert "var(--ink)" in body
    assert re.findall(r"fill: #(?:fff|22272e|000000)", body) == []
    assert themed(drawn) in html


def test_phones_get_a_figure_of_their_own_and_the_figure_stays_as_it_was():
    title = "a title that is far too long for a phone, as most of them are"
    with style():
        figure = new(9.2, 2)
        axes = figure.subplots()
        axes.set_title(title)
        axes.set_yticks([0, 1], ["harm: rows above the clean threshold (training data)", "b"])
        wide, narrow = re.findall(r'<svg class="(\w+)".*?viewBox="0 0 ([\d.]+) ([\d.]+)', svg(figure, "both"))
        assert (wide[0], narrow[0]) == ("wide", "narrow")
        assert (float(wide[1]), float(narrow[1])) == (9.2 * 72, 4.0 * 72)
        assert float(narrow[2]) > float(wide[2]) == 2 * 72
        assert ((9.2, 2), title) == (tuple(figure.get_size_inches()), axes.get_title(loc="left"))
        assert [one.get_text() for one in axes.get_yticklabels()][1:] == ["b"]
        assert "\n" not in axes.get_yticklabels()[0].get_text()
        figure.subplots(1, 2)
        assert svg(figure, "panels side by side").count("<svg") == 1


def test_columns_of_words_stand_to_the_left_and_numbers_to_the_right():
    rows = [["7", "a nurse", "3.1 %", "passed", "–"], ["8", "(none)", "–", "–", "-0.2 points"]]
    table = Table(("layer", "text", "share", "verdict", "change"), [[*map(Cell, row)] for row in rows])
    html = Page(title="T", subtitle="", sections=[Section("One", [table])]).html()
    left = re.findall(r'<th class="word">(\w+)</th>', html)
    assert left == ["layer", "text", "verdict"]
    assert re.findall(r'<td class="[^"]*word[^"]*"[^>]*>([^<]+)</td>', html) == [
        *("7", "a nurse", "passed"),
        *("8", "(none)", "–"),
    ]


def test_a_difference_of_rates_is_in_points_and_not_in_per_cent():
    change = Estimate(-0.021, -0.05, 0.008)
    assert points(change) == Cell("-2.1 points", "[-5.0, +0.8]")
    assert percent(change).text == "-2.1 %"


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), ([*"abcdef"], "a, b, c, d and 2 more")],
)
def test_names_stand_in_a_sentence(names, text):
    assert leads.several(names) == text
