"""Conformal thresholds hold what they promise, by simulation with fixed seeds."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from worlds import CALM, VECTORS, benign, calibration

from guardrail.calibration.benign import Benign, BenignReplies
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError
from guardrail.statistics.conformal import fpr_interval


def draws(seed, n):
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def rates(n, fpr, tail, repeats=400):
    """The true rate on fresh prompts, which are standard normal here, for many calibrations of n."""
    thresholds = [Benign.of(draws(seed, n)).conformal(fpr, tail) for seed in range(repeats)]
    return norm.sf(thresholds) if tail == "upper" else norm.cdf(thresholds)


@pytest.mark.parametrize("tail", ["upper", "lower"])
@pytest.mark.parametrize(("n", "fpr"), [(99, 0.01), (199, 0.05), (500, 0.02), (300, 0.2)])
def test_the_mean_rate_on_fresh_prompts_is_at_most_what_was_asked(n, fpr, tail):
    found = rates(n, fpr, tail)
    error = found.std() / math.sqrt(len(found))
    assert found.mean() <= fpr + 3 * error
    assert found.mean() >= fpr * (n / (n + 1)) - 1 / (n + 1) - 3 * error


def test_the_interval_covers_the_rate_that_a_threshold_really_has():
    n, fpr = 500, 0.02
    low, high = fpr_interval(n, fpr)
    found = rates(n, fpr, "upper", repeats=600)
    assert 0.92 <= np.mean((found >= low) & (found <= high)) <= 0.98


def test_ties_at_the_threshold_do_not_fire_more_often_than_asked():
    values = np.repeat(np.arange(100, dtype=np.float32), 10)
    threshold = Benign.of(values).conformal(0.05)
    assert np.mean(values >= threshold) <= 0.05


def test_a_heavy_tie_at_the_top_is_left_alone():
    values = np.concatenate([np.zeros(900), np.ones(100)]).astype(np.float32)
    threshold = Benign.of(values).conformal(0.05)
    assert np.mean(values >= threshold) == 0


@pytest.mark.parametrize(("fpr", "n"), [(0.01, 98), (0.001, 998), (0.05, 18)])
def test_too_few_prompts_for_the_rate_is_an_error_that_says_how_many(fpr, n):
    with pytest.raises(CalibrationError, match=f"needs at least {n + 1} benign prompts, not {n}"):
        Benign.of(draws(0, n)).conformal(fpr)
    Benign.of(draws(0, n + 1)).conformal(fpr)


@CALM
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=60),
    at=st.floats(-120, 120, width=32),
)
def test_what_lies_beyond_is_exact_in_the_tails(values, at):
    if min(values) == max(values):
        return
    summary = Benign.of(np.array(values, dtype=np.float32))
    for tail, kept in (("upper", summary.high), ("lower", summary.low)):
        inside = at > min(kept) if tail == "upper" else at < max(kept)
        if inside:
            true = sum(v >= at for v in values) if tail == "upper" else sum(v <= at for v in values)
            assert summary.beyond(at, tail) == true


def test_what_lies_beyond_is_close_in_the_middle():
    values = draws(3, 2000)
    summary = Benign.of(values)
    assert abs(summary.beyond(0.1) - np.sum(values >= 0.1)) < 20
    assert abs(summary.beyond(-0.1, "lower") - np.sum(values <= -0.1)) < 20


def test_a_score_is_in_benign_standard_deviations():
    summary = benign(0)
    assert summary.standardise(summary.mean) == 0
    assert summary.standardise(summary.mean + 2 * summary.sd) == pytest.approx(2)


@pytest.mark.parametrize("n", [10, 999, 2000])
def test_percentiles_are_exact_in_the_tails(n):
    values = draws(5, n) ** 3
    summary = Benign.of(values)
    for percent in (0.3, 2.5, 50, 97.5, 99, 99.7):
        assert summary.percentile(percent) == pytest.approx(np.percentile(values, percent), abs=1e-2)
    for percent in (0.3, 99.7):
        assert summary.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=1e-5)


def test_percentiles_interpolate():
    summary = Benign.of(np.arange(101, dtype=np.float32))
    assert [summary.percentile(p) for p in (0, 50, 99.5, 100)] == [0, 50, 99.5, 100]


SEVENTEEN = np.arange(-8.0, 9.0) ** 3
"""Their 2nd smallest is the percentile 6.25, their 2nd largest 93.75: exactly, in floating point."""


def test_the_innermost_kept_value_is_exact():
    summary = Benign.of(SEVENTEEN)
    assert (summary.low, summary.high) == ((-512, -343), (343, 512))
    assert (summary.percentile(6.25), summary.percentile(93.75)) == (-343, 343)


def test_a_tenth_of_the_values_is_kept_on_each_side_and_one_at_least():
    assert [len(Benign.of(np.arange(n)).low) for n in (2, 5, 10, 11, 101)] == [1, 1, 1, 2, 11]
    assert Benign.of(np.arange(5)).high == (4.0,)


def test_single_precision_is_summed_up_in_double():
    values = draws(0, 1000) + np.float32(1000)
    assert Benign.of(values) == Benign.of(values.astype(np.float64))


@pytest.mark.parametrize(("tail", "sign"), [("upper", 1), ("lower", -1)])
def test_a_threshold_is_a_hair_past_its_order_statistic(tail, sign):
    shifted = Benign.of(np.arange(99.0) - 49)
    small = Benign.of((np.arange(99.0) - 49) / 1e4)
    # the 95th of 99 is 45; at a rate of 0.11 the 89th is the first that is not kept
    assert sign * shifted.conformal(0.05, tail) == pytest.approx(45 + 45e-5, rel=1e-12)
    assert sign * small.conformal(0.05, tail) == pytest.approx(45e-4 * (1 + 1e-5), rel=1e-6)
    assert sign * shifted.conformal(0.11, tail) == pytest.approx(39.1, abs=0.01)
    assert sign * shifted.conformal(0.4, tail) == pytest.approx(10.4, abs=0.01)


def test_a_threshold_near_zero_keeps_its_distance_in_standard_deviations():
    values = np.arange(99.0) - 94
    assert Benign.of(values).conformal(0.05) == pytest.approx(1e-5 * values.std(ddof=1))


def test_a_prompt_exactly_at_a_projection_reaches_it():
    summary = Benign.of(np.arange(101.0))
    assert (summary.beyond(95.0), summary.beyond(5.0, "lower")) == (6, 6)


def test_half_of_the_prompts_lie_beyond_the_median():
    summary = Benign.of(np.arange(1001.0))
    assert [summary.beyond(500.0, tail) for tail in ("upper", "lower")] == pytest.approx([500.5] * 2, abs=1)


REPLIES = (np.asarray([0.2, 0.0, 0.1]), np.asarray([0.2, 0.4]))


def replies():
    return BenignReplies.of(REPLIES, iter([("max", 1), ("mean", 2)]))


def test_replies_are_summed_up_by_token_by_turn_and_by_their_extremes():
    found = replies()
    assert (found.mean, found.sd) == pytest.approx((0.18, np.std([0, 0.1, 0.2, 0.2, 0.4], ddof=1)))
    assert (found.turn_mean, found.turn_sd) == pytest.approx((0.2, math.sqrt(0.02)))
    highest = {key: summary.percentiles[::100] for key, summary in found.highest.items()}
    lowest = {key: summary.percentiles[::100] for key, summary in found.lowest.items()}
    assert highest == {"max 1": pytest.approx((0.2, 0.4)), "mean 2": pytest.approx((0.2, 0.3))}
    assert lowest == {"max 1": pytest.approx((0.0, 0.2)), "mean 2": pytest.approx((0.05, 0.2))}


def test_the_extremes_of_a_statistic_are_found_by_side():
    found = replies()
    assert found.extremes("max 1", "upper") is found.highest["max 1"]
    assert found.extremes("max 1", "lower") is found.lowest["max 1"]
    with pytest.raises(CalibrationError, match="mean 2"):
        found.extremes("ema 9", "upper")


@pytest.mark.parametrize("made", [REPLIES[:1], (REPLIES[0], np.asarray([])), ()])
def test_too_few_or_empty_replies_are_refused(made):
    with pytest.raises(CalibrationError):
        BenignReplies.of(made, [("max", 1)])


@pytest.mark.parametrize("damage", [{"sd": 0.0}, {"turn_sd": 0.0}])
def test_replies_that_do_not_vary_are_damaged(damage):
    with pytest.raises(CalibrationError, match="damaged"):
        replace(replies(), **damage)


@pytest.mark.parametrize(
    "damage", [{"low": ()}, {"high": ()}, {"sd": math.nan}, {"percentiles": (1.0,) * 100}]
)
def test_a_summary_with_a_part_missing_is_damaged(damage):
    with pytest.raises(CalibrationError, match="damaged"):
        replace(benign(0), **damage)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, 1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_useless_projections_are_refused(values):
    with pytest.raises(CalibrationError):
        Benign.of(np.array(values))


def test_a_calibration_reads_back_the_same(tmp_path):
    made = calibration()
    made.save(tmp_path / "c.json")
    read = Calibration.load(tmp_path / "c.json")
    assert read == made
    assert read.sha256 == made.sha256
    assert read.vectors_sha256 == VECTORS.sha256


def test_replies_read_back_the_same(tmp_path):
    made = replace(calibration(), replies={"evil": {2: replies()}})
    made.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == made


def test_a_file_without_replies_and_evidence_does_not_mention_them(tmp_path):
    calibration().save(tmp_path / "c.json")
    assert not {"replies", "evidence"} & set(json.loads((tmp_path / "c.json").read_text()))


def test_the_hash_does_not_depend_on_the_order_of_the_traits():
    made = calibration()
    assert replace(made, probes=dict(reversed(made.probes.items()))).sha256 == made.sha256


@pytest.mark.parametrize("key", ["format", "version", "probes"])
def test_a_file_without_a_key_is_refused(tmp_path, key):
    path = tmp_path / "c.json"
    calibration().save(path)
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(CalibrationError, match=key if key != "format" else "calibration"):
        Calibration.load(path)


def test_another_content_has_another_hash():
    assert replace(calibration(), population="others").sha256 != calibration().sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a guardrail calibration"),
        ({"version": 9}, "version 9 is not supported; supported: 1"),
        ({"probes": 3}, "`probes`: input should be a valid"),
        ({"fingerprint": None}, "`fingerprint`: input should be"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path, change, message):
    path = tmp_path / "c.json"
    calibration().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CalibrationError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{"])
def test_something_else_is_no_calibration(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError):
        Calibration.load(path)


def test_a_damaged_entry_is_refused(tmp_path):
    path = tmp_path / "c.json"
    calibration().save(path)
    data = json.loads(path.read_text())
    data["probes"]["evil"]["1"]["sd"] = 0.0
    path.write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match="damaged"):
        Calibration.load(path)


@pytest.mark.parametrize("tail", ["upper", "lower"])
@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 10 + [1.0] * 10,
        [*range(900), *[2000.0] * 100],
        [*[-5.0] * 500, *range(500)],
        [*range(300), *[400.0] * 400, *range(500, 800)],
        [*range(50), *[0.125] * 950],
    ],
)
def test_equal_values_never_lie_beyond_less_often_than_they_do(values, tail):
    """A threshold that lands on a value that many prompts share fires on all of them."""
    values = np.array(values)
    summary, percent = Benign.of(values), math.ceil(len(values) / 100)
    shared = {at for at in values if np.sum(values == at) > percent}
    for at in {*values, *shared}:
        reached = np.sum(values >= at) if tail == "upper" else np.sum(values <= at)
        assert abs(summary.beyond(at, tail) - reached) <= percent
        assert at not in shared or summary.beyond(at, tail) >= reached


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "damage",
    [
        {"sd": INF},
        {"sd": NAN},
        {"mean": NAN},
        {"mean": -INF},
        {"high": (1.0, NAN)},
        {"low": (-INF, 0.0)},
        {"percentiles": (*range(100), INF)},
        {"percentiles": tuple(reversed(range(101)))},
        {"high": (2.0, 1.0)},
        {"n": 1},
    ],
)
def test_statistics_that_are_not_finite_or_out_of_order_are_refused(damage, tmp_path):
    """A threshold that is not a number would let every prompt pass."""
    good = Benign.of(np.arange(50.0))
    with pytest.raises(CalibrationError, match="damaged"):
        replace(good, **damage)


@pytest.mark.parametrize("damage", [{"sd": INF}, {"mean": NAN}, {"turn_mean": INF}, {"turn_sd": NAN}])
def test_statistics_of_replies_that_are_not_finite_are_refused(damage):
    good = BenignReplies.of([np.arange(5.0), np.arange(3.0, 9.0)], [("mean", 2)])
    with pytest.raises(CalibrationError, match="damaged"):
        replace(good, **damage)
