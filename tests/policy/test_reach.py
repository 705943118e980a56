"""Thresholds that few benign prompts put beyond all of them: is anything said, and what?"""

from dataclasses import replace

import numpy as np
import pytest
from worlds import FINGERPRINT, VECTORS, calibration, rule

from guardrail.calibration.benign import Benign
from guardrail.calibration.slices import Slice
from guardrail.plugins.manager import Plugins
from guardrail.policy.compiler import Compiler
from guardrail.policy.conditions import CompileInputs
from guardrail.policy.model import PolicySet
from guardrail.policy.reach import enough, shown
from guardrail.statistics.conformal import conformal_rank
from guardrail.vectors.file_format import header
from guardrail.vectors.provenance import LabelledFit
from guardrail.vectors.values import TraitVectors


def fitted(positives):
    """The vectors, `evil` fitted on labelled prompts with these projections of held-out ones."""
    fit = LabelledFit(data_sha256="", criterion="", reason="", checks=(), candidates=(), positives=positives)
    layered = {trait: replace(vector, layer=2) for trait, vector in VECTORS.items()}
    return TraitVectors(layered, replace(VECTORS.provenance, fits={"evil": fit}))


def warnings(n, *rules, vectors=VECTORS, **changes):
    made = replace(calibration(vectors, n), **changes)
    inputs = CompileInputs(
        fingerprint=FINGERPRINT, vectors=vectors, calibration=made, actions=Plugins().action_infos()
    )
    compiler = Compiler(PolicySet.model_validate({"version": 1, "policies": rules}), inputs)
    found = compiler.compile().warnings
    assert not compiler.problems
    return list(found)


def at(threshold, **keys):
    return rule(threshold=threshold, **keys)


@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.02, 0.05, 0.3])
def test_the_fewest_prompts_are_those_with_which_one_benign_prompt_reaches_the_threshold(fpr):
    n = enough(fpr)
    assert conformal_rank(n, fpr) == n - 1
    assert conformal_rank(n - 1, fpr) == n - 1, "the highest of them"


@pytest.mark.parametrize("n", [9, 80, 99, 100, 198, 1500])
def test_the_rate_that_is_offered_is_one_that_the_prompts_show(n):
    assert enough(shown(n)) <= n
    assert shown(n) < 1.1 * 2 / (n + 1) + 1e-9


def test_a_rate_that_the_prompts_cannot_show_is_said_in_one_sentence():
    (said,) = warnings(100, at({"fpr": 0.01}))
    assert said == (
        "p: 100 benign prompts are too few for a rate of 1 %: the threshold is beyond all of them, and may "
        "be too high to find anything; calibrate on at least 199, or set {fpr: 0.02}"
    )
    assert warnings(100, at({"fpr": 0.02})) == warnings(199, at({"fpr": 0.01})) == []
    assert len(warnings(100, at({"fpr": 0.01}, fires="below"))) == 1


@pytest.mark.parametrize("threshold", [5.0, {"raw": 20.0}, {"percentile": 100}])
def test_a_threshold_that_hardly_one_of_few_prompts_reaches_is_said(threshold):
    (said,) = warnings(100, at(threshold))
    assert "the threshold, and may be too high to find anything; calibrate on at least 199" in said
    assert warnings(999, at(threshold)) == []


def test_policies_that_are_off_are_not_spoken_of_and_the_others_once_each():
    two = [{"trait": trait, "threshold": {"fpr": 0.01}} for trait in ("evil", "sycophancy")]
    both = {"id": "two", "any_of": two, "action": "block"}
    found = warnings(100, at({"fpr": 0.01}, id="off", mode="off"), at({"fpr": 0.01}, mode="shadow"), both)
    assert [said.split(":")[0] for said in found if "without" not in said] == ["p", "two"]


def test_how_many_prompts_with_the_trait_reach_the_threshold_is_said_if_the_vectors_know():
    few = warnings(100, at({"fpr": 0.01}), vectors=fitted((0.0, 1.0, 99.0)))
    assert "beyond all of them, and 1 of 3 prompts with `evil` that the fit held out reaches it;" in few[0]
    (many,) = warnings(999, at({"fpr": 0.01}), vectors=fitted((0.0,) * 40))
    assert many.startswith("p: the threshold is too high: 0 of 40 prompts with `evil` that the fit held out")
    assert warnings(999, at({"fpr": 0.01}), vectors=fitted((99.0,) * 40)) == []
    assert warnings(999, at({"fpr": 0.01}, layer=3), vectors=fitted((0.0,) * 40)) == [], "another layer"


def test_a_small_slice_that_sets_the_threshold_is_named():
    hard = {layer: Benign.of(np.random.default_rng(layer).normal(9.0, 2.0, 120)) for layer in range(1, 5)}
    small = Slice(
        source="", source_sha256="", prompts=120, duplicates=0, skipped=0, probes=dict.fromkeys(VECTORS, hard)
    )
    (said,) = warnings(999, at({"fpr": 0.01}), slices={"bank": small}, worst_slice=True)
    assert said.startswith("p: 120 benign prompts of the slice `bank` are too few for a rate of 1 %")


def test_a_file_without_them_keeps_the_header_of_older_files():
    vectors = fitted(())
    assert "positives" not in header(vectors, vectors.provenance)
    assert "positives" in header(fitted((1.0,)), fitted((1.0,)).provenance)
