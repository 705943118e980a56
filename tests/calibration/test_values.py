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

from guardrail.calibration.values import Benign, Calibration
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


def test_another_content_has_another_hash():
    assert replace(calibration(), population="others").sha256 != calibration().sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a guardrail calibration"),
        ({"version": 9}, "version 9 is not supported; supported: 1"),
        ({"probes": 3}, "cannot be read as a calibration"),
        ({"fingerprint": None}, "cannot be read as a calibration"),
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
