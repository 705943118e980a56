"""A set's rate on slices, where the part of a slice that sets thresholds is not the part that tests them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny import TOKENIZER
from tiny import policies as policy_content

from guardrail.calibrate import projections as collect
from guardrail.calibrate.achieved import rule_fired
from guardrail.calibrate.fit import Options, calibrate
from guardrail.calibrate.policy_file import PolicyFile
from guardrail.calibrate.sample import read, split
from guardrail.errors import CalibrationError
from guardrail.extract.subject import Subject
from guardrail.plugins.manager import Plugins
from guardrail.testing import tiny_model
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

OPTIONS = Options(population="made up", fpr=0.05, set_fpr=0.1, conversations=0, worst_slice=True)


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), TOKENIZER, rows=16)


@pytest.fixture(scope="module")
def vectors(subject):
    rng, rows = np.random.default_rng(3), (subject.layers + 1, subject.d_model)
    made = {t: TraitVector.from_difference(t, rng.normal(size=rows), layer=2) for t in ("evil", "humor")}
    return TraitVectors(
        made, Provenance(fingerprint=subject.fingerprint, method="random", created="2026-01-01")
    )


def drawn(subject, letters, count, seed=0, held_out=0.2):
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list(letters), rng.integers(5, 40))) + "." for _ in range(count)]
    found = read(enumerate(texts), lambda messages: subject.render(messages).ids, subject.longest)
    return split(found.prompts, held_out)


@pytest.fixture(scope="module")
def sample(subject):
    slices = {"brackets": drawn(subject, "{}[]()", 100), "letters": drawn(subject, "ABCDEFGHI", 60)}
    return drawn(subject, "abcdefghijklmnopqrstuvwxyz    ?", 200).beside(slices)


def policy_file(folder):
    rules = [{"id": t, "trait": t, "action": "block", "threshold": {"fpr": 0.05}} for t in ("evil", "humor")]
    (folder / "policy.yaml").write_text(json.dumps(policy_content(folder, *rules)))
    return PolicyFile.read(folder / "policy.yaml", Plugins())


def test_the_set_keeps_its_rate_on_every_slice(subject, vectors, sample, tmp_path):
    vectors.save(tmp_path / "vectors.safetensors")
    found = calibrate(subject, vectors, sample, OPTIONS, policy_file(tmp_path))
    directions = collect.probes(vectors)
    fired = {}
    for name, one in {"benign": sample, **sample.slices}.items():
        kept = collect.prompt_projections(subject, one.calibration, directions, lambda count: None)
        fired[name] = np.any([rule_fired(rule, kept) for rule in found.plan.rules], axis=0).sum()
        assert fired[name] <= 0.1 * (len(one.calibration) + 1) - 1
    assert any(fired.values()), "the rates are so low that nothing fires"
    assert {name: one.achieved[0].n for name, one in found.calibration.slices.items()} == {
        "brackets": 20,
        "letters": 12,
    }


def test_a_set_rate_that_a_slice_is_too_small_for_is_refused_before_reading(
    subject, vectors, sample, tmp_path
):
    vectors.save(tmp_path / "vectors.safetensors")
    calls = []
    tight = replace(OPTIONS, set_fpr=0.02)
    with pytest.raises(
        CalibrationError, match=r"slice `letters`: .* needs at least 49 benign prompts, not 48"
    ):
        calibrate(subject, vectors, sample, tight, policy_file(tmp_path), calls.append)
    assert calls == []


def test_prompts_that_the_sample_holds_too_are_named(subject, sample):
    with pytest.raises(CalibrationError, match="slice `again`: 0 is the same prompt as 0") as caught:
        sample.beside({"again": sample})
    assert str(caught.value).endswith("and 180 more\na slice holds prompts that the sample lacks")


def test_a_probe_that_reads_nothing_in_a_slice_is_left_out_of_it():
    values = np.array([[1.0, np.nan], [2.0, np.nan]], np.float32)
    read = collect.Projections((("evil", 2), ("injection", 3)), values).readable()
    assert (read.columns, read.values.shape) == ((("evil", 2),), (2, 1))
