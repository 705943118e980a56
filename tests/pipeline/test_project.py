"""Scores for inspection: which traits and layers, in which unit, and what is NaN."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import guard, policy

from guardrail.pipeline.project import project
from guardrail.types import Message
from guardrail.vectors.values import TraitVectors

TALK = (Message("user", "Hello there"),)


@pytest.fixture
def made(tmp_path):
    with guard(tmp_path, policy()) as made:
        yield made


def projected(made, active, layers="all", position="last"):
    return project(made.engine, active, TALK, ["evil"], layers, position)


def with_vector(active, **changed):
    vectors = {**active.vectors, "evil": replace(active.vectors["evil"], **changed)}
    return replace(active, vectors=TraitVectors(vectors, active.vectors.provenance))


def raw(made, active, layer):
    """The projection, computed here."""
    hidden = made.engine.hidden_states(made.engine.render(TALK), [layer], "last")[layer]
    vector = active.vectors["evil"]
    return float(hidden @ vector.probe[layer] + vector.offset[layer])


def test_without_a_choice_every_trait_and_every_layer_is_scored(made):
    scores = made.project(TALK)
    assert (scores.shape, scores.dtype) == ((2, 4), np.float32)
    rows = [made.project(TALK, traits=[name])[0] for name in made.active.vectors]
    assert np.allclose(scores, rows)


def test_a_projection_has_the_offset_of_its_layer(made):
    offset = np.arange(5, dtype=np.float32) + 1
    active = replace(with_vector(made.active, offset=offset), calibration=None)
    expected = [raw(made, active, layer) for layer in (1, 2, 3, 4)]
    assert projected(made, active)[0] == pytest.approx(expected, rel=1e-4)


def test_without_a_calibration_scores_are_projections(made):
    active = replace(made.active, calibration=None)
    assert projected(made, active, [3])[0, 0] == pytest.approx(raw(made, active, 3), rel=1e-4)


def test_scores_are_projections_if_the_calibration_lacks_the_trait_or_the_layer(made):
    calibration = made.active.calibration
    layers = {k: v for k, v in calibration.probes["evil"].items() if k != 3}
    for probes in ({}, {"evil": layers}):
        active = replace(made.active, calibration=replace(calibration, probes=probes))
        assert projected(made, active, [3])[0, 0] == pytest.approx(raw(made, active, 3), rel=1e-4)


@pytest.mark.parametrize("position", ["last", "all"])
def test_a_layer_that_cannot_be_used_is_nan_and_the_others_are_not(made, position):
    scores = projected(made, with_vector(made.active, unusable=(2,)), position=position)
    usable = projected(made, made.active, position=position)
    assert scores.shape == usable.shape
    assert np.isnan(scores[0, 1]).all()
    kept = [0, 2, 3]
    assert np.array_equal(scores[0, kept], usable[0, kept])
