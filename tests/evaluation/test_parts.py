"""Slices, the text baseline, confusion, gates, and policies as detectors."""

import numpy as np
import pytest

from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError, ConfigError
from guardrail.evaluation import baseline, confusion, detectors, gates, slices
from guardrail.evaluation.material import Example, Material
from guardrail.evaluation.readout import Placed, Readout
from guardrail.evaluation.results import DetectorResult
from guardrail.statistics.intervals import Estimate
from guardrail.testing import hand_made_plan, hand_made_vectors, tiny_fingerprint
from guardrail.types import Message


def example(text="hello", **known):
    return Example(messages=(Message("user", text),), **known)


def test_slices_are_declared_ones_and_thirds_of_the_length():
    examples = [example("x" * n, slices={"style": "formal" if n % 2 else "casual"}) for n in range(1, 31)]
    assert slices.sliced(examples)["style"]["formal"] == list(range(0, 30, 2))
    lengths = slices.by_length(examples)
    assert [len(rows) for rows in lengths.values()] == [10, 10, 10]
    assert list(lengths) == ["up to 10 characters", "11 to 20 characters", "over 20 characters"]


def test_prompts_of_one_length_have_no_thirds():
    assert slices.by_length([example("same")] * 9) == {}


WORDS = {True: ("cruel", "vicious", "mean"), False: ("kind", "gentle", "nice")}


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    labels = [bool(i % 2) for i in range(count)]
    return [f"be {rng.choice(WORDS[label])} to number {rng.integers(99)}" for label in labels], labels


def test_the_text_baseline_finds_keywords():
    words, labels = texts(60)
    found = baseline.cross_validated(words, labels, [str(i) for i in range(60)])
    assert found[np.array(labels)].min() > found[~np.array(labels)].max()


def test_the_text_baseline_cannot_learn_a_group_by_heart():
    labels = [bool(i % 2) for i in range(40)]
    # each group has a word of its own that gives the label away, and nothing else does
    groups = [f"g{i // 4}{label}" for i, label in enumerate(labels)]
    found = baseline.cross_validated([f"word{group} here" for group in groups], labels, groups)
    shown = np.array(labels)
    leaked = baseline.cross_validated(
        [f"word{group} here" for group in groups], labels, [str(i) for i in range(40)]
    )
    assert leaked[shown].mean() - leaked[~shown].mean() > found[shown].mean() - found[~shown].mean()


def test_the_text_baseline_needs_two_groups_of_each_class():
    words, labels = texts(10)
    assert (
        baseline.cross_validated(
            words, labels, ["one" if label else str(i) for i, label in enumerate(labels)]
        )
        is None
    )


def test_the_text_baseline_learns_from_training_data():
    words, labels = texts(40)
    found = baseline.learnt(words, labels, ["a cruel one", "a gentle one"])
    assert found[0] > 0 > found[1]
    assert baseline.learnt(words, [True] * 40, words) is None


def test_cosines_and_coexpression_are_set_side_by_side():
    vectors = hand_made_vectors(("a", "b"))
    cosines = confusion.cosines(vectors, ("a", "b"), {"a": 2, "b": 2})
    assert cosines == {"a": {"a": 1.0, "b": 0.0}, "b": {"a": 0.0, "b": 1.0}}
    examples = [example(expression={"a": (float(i), i + 2.0), "b": (100.0 - i,)}) for i in range(10)]
    together = confusion.coexpression([*examples, example(expression={"a": (7.0,)})], ("a", "b"))
    assert together["a"]["b"] == pytest.approx(-1)
    assert confusion.coexpression([example(expression={"a": (7.0,)})], ("a", "b")) is None


def test_matrices_agree_where_their_entries_go_together():
    names = "abc"
    first = {a: {b: 0.1 * (i + j) for j, b in enumerate(names)} for i, a in enumerate(names)}
    second = {a: {b: -0.2 * (i + j) for j, b in enumerate(names)} for i, a in enumerate(names)}
    assert confusion.agreement(first, second) == pytest.approx(-1)
    assert confusion.agreement(first, None) is None


def planted(values, layer=2):
    """States in which coordinate 0 at one layer has these values."""
    states = np.zeros((len(values), 5, 32), np.float32)
    states[:, layer, 0] = values
    return states


def material(labels):
    examples = tuple(example(str(i), labels={"evil": label}) for i, label in enumerate(labels))
    return Material(traits=("evil",), labelled=examples, monitored={}, neutral=())


def test_a_policy_fires_as_its_plan_says_and_its_rates_are_exact():
    labelled = material([True, True, True, False, False, False, False])
    readout = Readout(labelled.labelled, {"last": planted([5, 2, 1, 2, 0, 0, -9])})
    (detector,) = detectors.from_plan(hand_made_plan(threshold=2.0)).values()
    found = detectors.measured(detector, labelled, readout)
    assert (found.tpr.value, found.fpr.value) == (pytest.approx(2 / 3), 0.25)
    assert found.fires_on["benign"] == found.fpr
    assert found.fpr.high == pytest.approx(0.806, abs=1e-3)
    assert detectors.set_fpr({"test": detector}, labelled, readout) == found.fpr


def calibration(vectors, below=False):
    benign = Benign.of(np.linspace(-1, 1, 200))
    return Calibration(
        fingerprint=tiny_fingerprint(),
        vectors_sha256=vectors.sha256,
        population="line",
        created="2026",
        probes={"evil": {2: benign}},
        steering={},
    )


@pytest.mark.parametrize("below", [False, True])
def test_a_calibrated_probe_fires_in_the_tail_that_it_watches(below):
    vectors = hand_made_vectors(("evil",))
    side = frozenset({"evil"}) if below else frozenset()
    (detector,) = detectors.from_calibration(vectors, calibration(vectors), {"evil": 2}, side).values()
    assert detector.what.fires(Placed({"last": planted([-1.1, 0, 1.1])})).tolist() == (
        [True, False, False] if below else [False, False, True]
    )


def test_a_calibration_without_the_layer_is_refused():
    vectors = hand_made_vectors(("evil",))
    with pytest.raises(CalibrationError, match="lacks evil at layer 3"):
        detectors.from_calibration(vectors, calibration(vectors), {"evil": 3}, frozenset())


def test_a_threshold_from_the_data_claims_no_false_positive_rate():
    labelled = material([True, *[False] * 200])
    readout = Readout(labelled.labelled, {"last": planted([9, *np.linspace(-1, 1, 200)])})
    vectors = hand_made_vectors(("evil",))
    (detector,) = detectors.from_data(vectors, {"evil": 2}, labelled, readout).values()
    found = detectors.measured(detector, labelled, readout)
    assert found.fpr is None
    assert found.fires_on["benign"].value == 0.01
    assert found.tpr.value == 1.0


def detector_result(fpr, source="policy", mode="enforce"):
    return DetectorResult(traits=("evil",), source=source, mode=mode, fpr=fpr, tpr=None, fires_on={})


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.0, 0.009, "passed"), (0.005, 0.02, "inconclusive"), (0.02, 0.03, "failed")],
)
def test_the_whole_interval_has_to_meet_a_gate(low, high, verdict):
    (gate,) = gates.most_fpr({"p": detector_result(Estimate((low + high) / 2, low, high))}, 0.01)
    assert gate.verdict == verdict


def test_what_was_not_measured_is_not_passed():
    (gate,) = gates.most_fpr({"p": detector_result(None)}, 0.01)
    assert gate.verdict == "not measured"


def test_a_rate_gate_needs_a_threshold_that_is_enforced():
    for one in (detector_result(None, source="data"), detector_result(None, mode="shadow")):
        with pytest.raises(ConfigError, match="--max-fpr needs thresholds"):
            gates.most_fpr({"p": one}, 0.01)
