"""Trait vectors as values, and every check on the way in."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from guardrail.errors import VectorError
from guardrail.testing import hand_made_vectors, tiny_fingerprint
from guardrail.vectors.provenance import Imported, LayerChoice, Provenance
from guardrail.vectors.values import TraitVector, TraitVectors, _header, unit

ROWS, WIDTH = 5, 32


def vector(seed=0, trait="evil", **keys):
    difference = np.random.default_rng(seed).normal(size=(ROWS, WIDTH))
    return replace(TraitVector.from_difference(trait, difference), **keys)


def changed(name, row, value):
    """A vector in which one row of one part is replaced."""
    made = vector()
    part = getattr(made, name).copy()
    part[row] = value
    return replace(made, **{name: part})


def test_the_probe_is_the_unit_steering_vector_by_default():
    made = vector()
    assert (made.layers, made.d_model, made.steering.dtype) == (4, WIDTH, np.float32)
    np.testing.assert_allclose(np.linalg.norm(made.probe, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(made.cosine(made), 1, rtol=1e-5)


def test_arithmetic_acts_on_what_steers():
    a, b = vector(0), vector(1, "humor")
    np.testing.assert_allclose((a + b).steering, a.steering + b.steering)
    np.testing.assert_allclose((a - b).steering, a.steering - b.steering)
    np.testing.assert_allclose((2 * a).steering, (a * 2).steering)
    np.testing.assert_allclose((a / 2).steering, a.steering / 2)
    np.testing.assert_allclose((-a).steering, -a.steering)
    assert ((a + b).trait, (a - b).trait) == ("evil+humor", "evil-humor")


def test_scaling_keeps_what_detects():
    a = vector()
    assert np.array_equal((3 * a).probe, a.probe)


def test_a_sum_is_usable_where_both_are():
    both = vector(unusable=(4,)) + vector(1, unusable=(2,))
    assert [both.usable(row) for row in range(-1, 6)] == [False, False, True, False, True, False, False]


def test_other_shapes_do_not_add():
    other = TraitVector.from_difference("x", np.ones((ROWS, WIDTH + 1)))
    with pytest.raises(VectorError, match="shapes differ"):
        vector() + other


def test_increments_add_up_to_the_vector():
    made = vector()
    rows = made.incremental()
    assert not rows[0].any()
    np.testing.assert_allclose(rows[1:].cumsum(axis=0), made.steering[1:] - made.steering[0], atol=1e-5)


def test_unit_leaves_zero_rows_alone():
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["steering", "probe", "offset"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(name, value):
    with pytest.raises(VectorError, match=f"{name} has NaN or infinite"):
        changed(name, 2, value)


@pytest.mark.parametrize("name", ["steering", "probe"])
def test_a_zero_row_is_refused_where_it_would_be_read(name):
    with pytest.raises(VectorError, match=f"{name} has zero norm at layer 3"):
        changed(name, 3, 0.0)
    assert changed(name, 0, 0.0).usable(1)


def test_a_zero_row_may_be_marked_unusable():
    made = vector(unusable=(4,))
    steering = made.steering.copy()
    steering[4] = 0
    assert not replace(made, steering=steering).usable(4)


@pytest.mark.parametrize("layer", [0, 5, -1])
def test_the_chosen_layer_must_exist(layer):
    with pytest.raises(VectorError, match="not a usable layer"):
        vector(layer=layer)


@pytest.mark.parametrize(
    "keys",
    [
        {"steering": np.ones(3, np.float32)},
        {"probe": np.ones((4, WIDTH), np.float32)},
        {"offset": np.zeros(4, np.float32)},
    ],
)
def test_parts_of_other_shapes_are_refused(keys):
    with pytest.raises(VectorError):
        vector(**keys)


def test_a_file_reads_back_the_same(tmp_path):
    made = hand_made_vectors()
    made.save(tmp_path / "v.safetensors")
    read = TraitVectors.load(tmp_path / "v.safetensors")
    assert list(read) == list(made)
    assert read.provenance == made.provenance
    assert read.sha256 == made.sha256
    for name in made:
        assert np.array_equal(read[name].steering, made[name].steering)
        assert (read[name].layer, read[name].unusable) == (made[name].layer, made[name].unusable)


def test_the_hash_follows_numbers_and_provenance():
    made = hand_made_vectors()
    other = replace(made, provenance=replace(made.provenance, method="other"))
    scaled = replace(made, vectors={"evil": 2 * made["evil"]})
    assert len({made.sha256, other.sha256, scaled.sha256}) == 3


def test_vectors_must_fit_the_model_they_name():
    provenance = Provenance(fingerprint=tiny_fingerprint(layers=7), method="m", created="2026-01-01")
    with pytest.raises(VectorError, match="do not fit 7 layers x 32"):
        TraitVectors({"evil": vector()}, provenance)


def rewritten(path, arrays=None, **metadata):
    """The file with other arrays or other metadata."""
    from safetensors import safe_open

    made = hand_made_vectors()
    made.save(path)
    with safe_open(str(path), framework="numpy") as file:
        header = file.metadata()
    tensors = load_file(path) | (arrays or {})
    save_file({k: v for k, v in tensors.items() if v is not None}, str(path), metadata=header | metadata)
    return path


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "other"}, "not a guardrail vector file"),
        ({"version": "9"}, "version 9 is not supported; supported: 1"),
        ({"header": "{"}, "damaged provenance"),
        ({"header": json.dumps({"vectors": {}})}, "damaged provenance"),
        ({"arrays": {"evil/probe": None}}, "`evil/probe` is missing"),
        ({"arrays": {"evil/steering": np.full((5, 32), np.nan, np.float32)}}, "NaN"),
        ({"arrays": {"evil/steering": np.zeros((5, 32), np.float32)}}, "zero norm"),
        ({"arrays": {"evil/steering": np.ones((5, 16), np.float32)}}, "do not fit"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_reason(tmp_path, keys, message):
    path = rewritten(tmp_path / "v.safetensors", **keys)
    with pytest.raises(VectorError, match=message) as caught:
        TraitVectors.load(path)
    assert str(path) in str(caught.value)


def test_a_cut_off_file_is_refused(tmp_path):
    path = rewritten(tmp_path / "v.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VectorError, match="cannot be read as safetensors"):
        TraitVectors.load(path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "v.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(VectorError):
        TraitVectors.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(VectorError, match=r"nowhere\.safetensors"):
        TraitVectors.load(tmp_path / "nowhere.safetensors")


def test_what_came_later_in_the_provenance_survives_and_old_files_keep_their_identity(tmp_path):
    plain = hand_made_vectors(("evil",))
    assert "imported" not in _header(plain)
    choice = LayerChoice(
        selector="separation", rule="highest", layer=2, layers=(1, 2), scores=(None, 0.9), sweep_sha256="s"
    )
    source = Imported(file="evil.pt", sha256="f", format="persona-vectors")
    provenance = replace(plain.provenance, imported={"evil": source}, layer_choices={"evil": choice})
    made = TraitVectors(plain.vectors, provenance)
    made.save(tmp_path / "v.safetensors")
    again = TraitVectors.load(tmp_path / "v.safetensors")
    assert again.provenance == provenance
    assert again.sha256 == made.sha256 != plain.sha256
