"""Drift is found where there is some, and hardly ever where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import VECTORS, benign, calibration

from guardrail.calibrate.drift import drift, ks_distance, psi
from guardrail.errors import CalibrationError
from guardrail.testing import audit_record, decision
from guardrail.types import Score

MADE = calibration()
KNOWN = MADE.probes["evil"][2]
THRESHOLD = KNOWN.standardise(KNOWN.conformal(0.01))
DECISION, RECORD = decision(), audit_record()


def record(value, number, fires="above", threshold=THRESHOLD, vectors=VECTORS.sha256, **keys):
    fired = value >= threshold if fires == "above" else value <= threshold
    score = Score(
        policy="p", trait="evil", layer=2, score=value, threshold=threshold, fired=bool(fired), mode="enforce"
    )
    made = replace(DECISION, scores=(score,), vectors_sha256=vectors)
    return replace(RECORD, decision=made, prompt_sha256=f"{number}", **keys)


def log(values, **keys):
    return [record(float(value), i, **keys) for i, value in enumerate(values)]


def live(seed, n, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, n)


def test_traffic_like_the_calibration_hardly_ever_alarms():
    reports = [drift(log(live(1000 + seed, 800)), MADE) for seed in range(40)]
    assert sum(report.drifted for report in reports) <= 1


@pytest.mark.parametrize("fires", ["above", "below"])
def test_the_rate_is_compared_on_the_side_that_fires(fires):
    threshold = THRESHOLD if fires == "above" else KNOWN.standardise(KNOWN.conformal(0.01, "lower"))
    (rate,) = drift(log(live(1, 2000), fires=fires, threshold=threshold), MADE).rates
    assert rate.fired / rate.n == pytest.approx(0.01, abs=0.01)
    assert rate.calibrated_low < 0.01 < rate.calibrated_high
    assert not rate.drifted


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (-0.5, 1.0), (0.0, 2.0), (0.0, 0.3)])
def test_shifted_traffic_alarms(shift, scale):
    reports = [drift(log(live(seed, 1000, shift, scale)), MADE) for seed in range(8)]
    assert all(report.drifted for report in reports)


def test_a_firing_rate_alone_can_alarm():
    values = live(3, 3000)
    values[:120] = THRESHOLD + 1
    report = drift(log(values), MADE)
    assert report.rates[0].drifted
    assert not report.scores[0].drifted


def test_a_share_that_may_be_harmful_explains_what_fires_and_not_more():
    values = live(3, 3000)
    values[:150] = THRESHOLD + 1
    assert drift(log(values), MADE).drifted
    assert not drift(log(values), MADE, harmful_share=0.06).drifted
    values[:450] = THRESHOLD + 1
    assert drift(log(values), MADE, harmful_share=0.06).drifted


def test_a_policy_that_never_fires_any_more_alarms():
    values = np.minimum(live(4, 4000), THRESHOLD - 0.01)
    (rate,) = drift(log(values), MADE).rates
    assert rate.fired == 0
    assert rate.drifted


def test_a_prompt_that_comes_again_counts_once():
    once = log(live(5, 300))
    report = drift([*once, *[once[0]] * 5000], MADE)
    assert (report.records, report.repeated) == (300, 5000)
    assert report.rates[0].n == report.scores[0].n == 300
    assert not report.drifted


def test_few_scores_say_nothing_about_the_distribution():
    assert not drift(log(live(6, 50, shift=0.6)), MADE).scores[0].drifted
    assert drift(log(live(6, 500, shift=0.6)), MADE).scores[0].drifted


def test_records_of_other_vectors_and_without_scores_are_left_out_and_counted():
    others = log(live(7, 10), vectors="other")
    empty = [replace(audit_record(), decision=replace(decision(), scores=(), vectors_sha256=VECTORS.sha256))]
    report = drift([*others, *empty, *log(live(8, 300))], MADE)
    assert (report.records, report.other_vectors, report.without_scores) == (300, 10, 1)


def test_nothing_to_compare_is_an_error_that_says_why():
    with pytest.raises(CalibrationError, match="no record was scored with this calibration's vectors"):
        drift(log(live(9, 10), vectors="other"), MADE)
    with pytest.raises(CalibrationError, match="no record has scores"):
        drift([], MADE)


def test_thresholds_that_were_changed_are_compared_one_by_one():
    first, second = log(live(10, 500)), log(live(11, 500), threshold=1.0)
    second = [replace(one, prompt_sha256=f"again {one.prompt_sha256}") for one in second]
    report = drift([*first, *second], MADE)
    assert [rate.threshold for rate in report.rates] == [THRESHOLD, 1.0]
    assert [score.n for score in report.scores] == [1000]
    assert not report.drifted


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_is_a_share(share):
    with pytest.raises(CalibrationError, match="harmful share"):
        drift(log(live(12, 300)), MADE, share)


def test_the_distance_is_that_of_kolmogorov_and_smirnov():
    from scipy.stats import ks_2samp

    values = np.random.default_rng(20).normal(1.0, 2.0, 999)
    known = benign(20)
    scores = np.sort(live(13, 500, shift=0.3))
    expected = ks_2samp(scores, (values - known.mean) / known.sd).statistic
    assert ks_distance(scores, known) == pytest.approx(expected, abs=0.01)


def test_the_psi_is_small_for_the_same_and_large_for_others():
    assert psi(np.sort(live(14, 5000)), KNOWN) < 0.05
    assert psi(np.sort(live(14, 5000, shift=1.0)), KNOWN) > 0.25
