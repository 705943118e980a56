"""A whole evaluation on states that are made up: what is measured on which prompts, and which side counts."""

from dataclasses import replace

import numpy as np
import pytest

from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError, ConfigError, ModelError, VectorError
from guardrail.evaluation import baseline
from guardrail.evaluation.material import Example, Material
from guardrail.evaluation.run import Setup, evaluate
from guardrail.statistics import intervals
from guardrail.testing import hand_made_vectors, tiny_fingerprint
from guardrail.types import Message

TRAITS = ("evil", "humor")
VECTORS = hand_made_vectors(TRAITS)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 100)


@pytest.fixture(autouse=True)
def _no_text_baseline(monkeypatch):
    """It is slow, and has tests of its own."""
    monkeypatch.setattr(baseline, "available", lambda: False)


class Reader:
    """Coordinate i of the states is the i-th number in the prompt."""

    fingerprint = tiny_fingerprint()

    def prompt_states(self, prompts):
        rng = np.random.default_rng(0)
        states = rng.normal(0, 0.1, (len(prompts), 5, 32)).astype(np.float32)
        for i, messages in enumerate(prompts):
            numbers = [float(word) for word in messages[-1].content.split()]
            states[i, :, : len(numbers)] += np.array(numbers, np.float32)
        return states

    def read(self, prompts, positions):
        return dict.fromkeys(positions, self.prompt_states(prompts))


def example(*numbers, **known):
    return Example(messages=(Message("user", " ".join(f"{n:.4f}" for n in numbers)),), **known)


def drawn(mean, count, seed, **known):
    rng = np.random.default_rng(seed)
    return tuple(example(*(rng.normal(m, 1) for m in mean), **known) for _ in range(count))


def material(**changes):
    benign = drawn((0, 0), 60, 0, labels=dict.fromkeys(TRAITS, False))
    evil, humor = (
        drawn(m, 40, i, labels={t: True})
        for i, (t, m) in enumerate({"evil": (4, 0), "humor": (0, 4)}.items())
    )
    rng = np.random.default_rng(9)
    monitored = tuple(
        example(x, 0, condition="ab"[i % 2], expression={"evil": (float(np.clip(50 + 15 * x, 0, 100)),)})
        for i, x in enumerate(rng.normal(0, 1, 60))
    )
    found = Material(
        traits=TRAITS,
        labelled=(*benign, *evil, *humor),
        monitored={"evil": monitored},
        neutral=drawn((0, 0), 60, 5),
    )
    return replace(found, **changes)


def run(made=None, **changes):
    return evaluate(
        Setup(model="tiny", vectors=VECTORS, data="made up", draws=200, **changes),
        Reader(),
        made or material(),
    )


def test_each_number_comes_from_its_own_prompts():
    evil = run().traits["evil"]
    assert (evil.detection.positives, evil.detection.negatives) == (40, 60)
    assert evil.detection.auroc.value > 0.97
    assert evil.detection.auroc_vs_other_traits.value > 0.97
    assert len(evil.samples.others) == 40
    assert evil.monitoring.r_within.value > 0.95
    assert evil.nulls.random_auroc.observed == evil.detection.auroc.value
    assert evil.nulls.layers == (1, 2, 3, 4)


def test_a_trait_that_is_watched_from_below_is_detected_at_its_low_end():
    low = tuple(replace(e, labels={"evil": True}) for e in drawn((-4, 0), 40, 3))
    kept = [e for e in material().labelled if e.positive != ("evil",)]
    made = material(labelled=(*kept, *low), below=frozenset({"evil"}))
    evil = run(made).traits["evil"]
    assert evil.fires == "below"
    assert evil.detection.auroc.value > 0.97
    # expression is of the trait, not of its absence
    assert evil.monitoring.r_overall.value > 0.95
    assert run(replace(made, below=frozenset())).traits["evil"].detection.auroc.value < 0.03


def test_the_confusion_has_a_row_for_each_detector_and_a_column_for_each_trait():
    found = run()
    assert list(found.detectors) == ["evil at 1% FPR", "humor at 1% FPR"]
    evil = found.detectors["evil at 1% FPR"].fires_on
    assert list(evil) == ["evil", "humor", "benign"]
    assert evil["evil"].value > 0.8
    assert evil["humor"].value < 0.1


def calibration(n, **changes):
    tables = {
        t: {row: Benign.of(np.random.default_rng(1).normal(size=n)) for row in range(1, 5)} for t in TRAITS
    }
    made = Calibration(
        fingerprint=tiny_fingerprint(),
        vectors_sha256=VECTORS.sha256,
        population="noise",
        created="2026",
        probes=tables,
        steering={},
    )
    return replace(made, **changes)


def test_a_small_calibration_gives_the_lowest_rate_that_it_supports():
    assert list(run(calibration=calibration(200)).detectors) == ["evil at 1% FPR", "humor at 1% FPR"]
    found = run(calibration=calibration(49)).detectors
    assert list(found) == ["evil at 2% FPR", "humor at 2% FPR"]
    assert found["evil at 2% FPR"].fpr.value < 0.15


def test_a_calibration_or_vectors_of_something_else_are_refused():
    other = replace(tiny_fingerprint(), weights="other")
    with pytest.raises(CalibrationError, match=r"another model \(different: weights"):
        run(calibration=calibration(200, fingerprint=other))
    with pytest.raises(CalibrationError, match="another vector file"):
        run(calibration=calibration(200, vectors_sha256="0"))
    wrong = hand_made_vectors(TRAITS, tiny_fingerprint(layers=6))
    with pytest.raises(VectorError, match="6 layers x 32, this model has 4 x 32"):
        evaluate(Setup(model="tiny", vectors=wrong, data=""), Reader(), material())


def test_a_trait_without_a_layer_or_with_one_that_cannot_be_read_is_refused():
    with pytest.raises(ConfigError, match="layer 5 cannot be read; layers are 1 to 4"):
        run(layer=5)


def test_without_neutral_text_there_is_no_null_of_random_directions_and_a_note():
    found = run(material(neutral=()))
    assert found.traits["evil"].nulls.random_auroc is None
    assert found.traits["evil"].nulls.shuffled_auroc is not None
    assert any("no null of random directions" in note for note in found.notes)


def test_small_samples_are_said():
    assert any("60 prompts do not show it" in note for note in run().notes)


def test_states_that_are_not_finite_are_refused():
    class Broken(Reader):
        def prompt_states(self, prompts):
            return np.full((len(prompts), 5, 32), np.nan, np.float32)

    with pytest.raises(ModelError, match="not finite"):
        evaluate(Setup(model="tiny", vectors=VECTORS, data=""), Broken(), material())
