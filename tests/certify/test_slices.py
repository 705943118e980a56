"""Calibrations that keep their rates on slices: compared by slice, and made anew for slices as well."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from tiny import policies, policy, write_vectors

from guardrail.calibration.benign import Benign
from guardrail.calibration.slices import Slice
from guardrail.calibration.values import Calibration
from guardrail.certify.comparison import certify
from guardrail.certify.recording import Recording, Said
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.statistics import intervals
from guardrail.testing import tiny_model
from guardrail.types import Configuration

CONFIGURATION = Configuration(engine="transformers", dtype="float32")
FPR, HIGHER = 0.05, 1.5
"""How much higher the slice `code` scores than the benign sample, in its standard deviations."""


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 200)


@dataclass
class World:
    """A calibration with a slice, the policies under it, and what a reference recorded."""

    active: object
    reference: Recording


def drawn(seed, count, mean=0.0):
    return np.random.default_rng(seed).normal(mean, size=count)


def world(folder, *, worst_slice=True, parts=None):
    """`parts`: the prompts of each recorded slice, the benign sample under the empty name."""
    write_vectors(folder, tiny_model())
    plain = Calibration.load(folder / "calibration.json")
    probes = {"evil": {3: Benign.of(drawn(1, 2000))}}
    code = Slice(
        source="code.jsonl",
        source_sha256="0",
        prompts=1000,
        duplicates=0,
        skipped=0,
        probes={"evil": {3: Benign.of(drawn(2, 1000, HIGHER))}},
    )
    made = replace(plain, probes=probes, slices={"code": code}, worst_slice=worst_slice)
    made.save(folder / "calibration.json")
    rules = policies(folder, policy(threshold={"fpr": FPR}, id="block"))
    active = load(rules, made.fingerprint, Plugins())
    given = {"": 1000, "code": 600} if parts is None else parts
    return World(active, recorded(active, given))


def recorded(active, parts):
    """The same distributions as in the calibration, in other prompts."""
    benign, threshold = active.calibration.probes["evil"][3], active.plan.rules[0].conditions[0].threshold
    said = []
    for place, (name, count) in enumerate(parts.items()):
        scores = (drawn(10 + place, count, HIGHER if name else 0.0) - benign.mean) / benign.sd
        said += [
            Said(
                sha256=f"{name}{i:05}",
                benign=True,
                status="evaluated",
                action="block" if score >= threshold else "allow",
                scores=(float(score),),
                slice=name,
            )
            for i, score in enumerate(scores)
        ]
    return Recording(
        configuration=CONFIGURATION,
        fingerprint=active.calibration.fingerprint,
        vectors_sha256=active.vectors.sha256,
        calibration_sha256=active.calibration.sha256,
        created="2026",
        columns=(("evil", 3),),
        said=tuple(said),
    )


def candidate(made):
    """Another configuration, whose scores are on another scale; it does not know of slices."""
    threshold = made.active.plan.rules[0].conditions[0].threshold
    said = []
    for one in made.reference.said:
        score = 2 * one.scores[0] + 1
        action = "block" if score >= threshold else "allow"
        said.append(replace(one, scores=(score,), action=action, slice=""))
    configuration = replace(CONFIGURATION, dtype="bfloat16")
    return replace(made.reference, configuration=configuration, said=tuple(reversed(said)))


def shares(checks):
    """The rate of the policy, by slice."""
    return {one.slice: one.candidate.value for one in checks if one.policy == "block"}


def test_new_thresholds_keep_the_rate_on_every_slice_that_the_old_ones_keep_it_on(tmp_path):
    made = world(tmp_path)
    found = certify(made.reference, candidate(made), made.active)
    assert found.comparison.verdict == "RECALIBRATE"
    before, after = shares(found.comparison.rates), shares(found.comparison.recalibrated.rates)
    assert before["code"] > 0.3
    assert after["code"] == pytest.approx(FPR, abs=0.03)
    assert after[""] < 0.01, "thresholds of the benign sample alone would give it 5 %, and the slice 44 %"
    assert any("on the slice `code`: fires on" in one for one in found.comparison.reasons)
    calibration = found.calibration
    assert (calibration.worst_slice, list(calibration.slices)) == (True, ["code"])
    code = calibration.slices["code"]
    assert (code.source, code.prompts, code.probes["evil"][3].n) == ("code.jsonl", 600, 300)
    assert {(one.kind, one.n) for one in code.achieved} == {("policy", 300), ("set", 300)}
    assert {one.n for one in calibration.evidence.achieved} == {500}
    assert (found.comparison.recalibrated.calibrated, found.comparison.recalibrated.tested) == (800, 800)
    calibration.save(tmp_path / "calibration.json")
    rules = policies(tmp_path, policy(threshold={"fpr": FPR}, id="block"))
    again = load(rules, calibration.fingerprint, Plugins())
    assert again.plan.rules[0].conditions[0].slice == "code"


def test_without_the_slices_no_calibration_is_proposed_that_would_forget_them(tmp_path):
    made = world(tmp_path, parts={"": 1000})
    found = certify(made.reference, candidate(made), made.active)
    assert (found.comparison.verdict, found.calibration) == ("FAIL", None)
    assert "slices that were not recorded (code); record them with --slice" in found.comparison.reasons[-1]
    same = certify(made.reference, made.reference, made.active).comparison
    assert same.verdict == "PASS"
    assert "slices that were not compared (code)" in same.notes[-1]


def test_slices_that_set_no_threshold_are_tested_whole(tmp_path):
    made = world(tmp_path, worst_slice=False)
    found = certify(made.reference, candidate(made), made.active)
    after = shares(found.comparison.recalibrated.rates)
    assert after[""] == pytest.approx(FPR, abs=0.03)
    assert after["code"] == pytest.approx(0.44, abs=0.08)
    assert found.comparison.verdict == "RECALIBRATE", "the old thresholds fire as often there"
    code = found.calibration.slices["code"]
    assert (found.calibration.worst_slice, code.probes["evil"][3].n) == (False, 600)
    assert (found.comparison.recalibrated.calibrated, found.comparison.recalibrated.tested) == (500, 1100)


def test_a_slice_that_is_too_small_for_the_rate_is_named(tmp_path):
    made = world(tmp_path, parts={"": 1000, "code": 30})
    found = certify(made.reference, candidate(made), made.active)
    assert found.comparison.verdict == "FAIL"
    assert "slice `code`" in found.comparison.reasons[-1]


def test_a_slice_that_the_calibration_does_not_have_is_compared_with_the_reference(tmp_path):
    made = world(tmp_path, worst_slice=False, parts={"": 1000, "chats": 400})
    same = certify(made.reference, made.reference, made.active).comparison
    (chats,) = [one for one in same.rates if (one.policy, one.slice) == ("block", "chats")]
    assert (chats.stated, chats.n, chats.kept) == (None, 400, True)
    assert same.verdict == "PASS"
