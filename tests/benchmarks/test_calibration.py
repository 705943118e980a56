"""The experiment on thresholds says what its numbers say, on made-up projections."""

import numpy as np
import pytest

from benchmarks.calibration import Parts, expected_coverage, set_trial, summary, trials
from guardrail.calibrate.projections import Projections

COLUMNS = (("evil", 2), ("humor", 3))


def parts(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    kept, held_out, fresh = (
        Projections(COLUMNS, (rng.normal(size=(n, 2)) + moved).astype(np.float32))
        for n, moved in ((2000, 0.0), (500, 0.0), (5000, shift))
    )
    return Parts(kept=kept, held_out=held_out, fresh=fresh)


def tried(samples, shift=0.0):
    drawn = [parts(seed, shift) for seed in range(samples)]
    found = [t for i, one in enumerate(drawn) for t in trials(i, one, 0.01)]
    return summary(found, [set_trial(i, one, 0.01) for i, one in enumerate(drawn)], 0.01, 2000)


def test_on_prompts_like_the_sample_the_goals_are_met_and_theory_is_right():
    found = tried(60)
    assert found.intervals == 120
    assert found.goals_met
    assert found.mean_rate == pytest.approx(0.01, abs=0.001)
    assert found.mean_set_rate <= 0.0105
    assert found.stated_coverage == pytest.approx(found.stated_coverage_expected, abs=0.08)


def test_on_other_prompts_the_goals_are_missed():
    found = tried(10, shift=0.5)
    assert not found.goals_met
    assert found.mean_rate > 0.02
    assert found.held_out_coverage < 0.5


def test_theory_expects_less_coverage_the_fewer_fresh_prompts_there_are():
    expected = [expected_coverage(2000, 0.01, fresh) for fresh in (1000, 5000, 100_000)]
    assert expected == sorted(expected)
    assert expected[-1] == pytest.approx(0.95, abs=0.01)
