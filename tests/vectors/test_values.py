"""Trait vectors as values, and every check on the way in."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from guardrail.errors import VectorError
from guardrail.testing import hand_made_vectors, tiny_fingerprint
from guardrail.types import ProbeSite
from guardrail.vectors.file_format import header, version
from guardrail.vectors.provenance import Imported, LayerChoice, Provenance
from guardrail.vectors.values import TraitVector, TraitVectors, unit

ROWS, WIDTH = 5, 32
PLACES = ((2, "last"), (2, "user_mean"), (2, "prompt_mean"), (4, "tool_mean"))


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
    assert "imported" not in header(plain, plain.provenance)
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


def site(layer, position="user_mean", **keys):
    weights = np.random.default_rng(layer).normal(size=WIDTH).astype(np.float32)
    return ProbeSite(**{"layer": layer, "position": position, "weights": weights, "normalised": True, **keys})


def summed(*sites, **keys):
    return vector(**{"layer": sites[-1].layer, "sites": sites, **keys})


SITES = (site(2, "last"), site(2), site(4, "tool_mean", absent=-0.5))


def test_a_sum_and_its_read_outs_come_back_from_a_file(tmp_path):
    fingerprint = hand_made_vectors().provenance.fingerprint
    made = {"harm": summed(*SITES, trait="harm"), "evil": vector(position="prompt_mean", normalised=True)}
    given = TraitVectors(made, Provenance(fingerprint=fingerprint, method="hand", created="now"))
    given.save(tmp_path / "v.safetensors")
    read = TraitVectors.load(tmp_path / "v.safetensors")
    assert read.sha256 == given.sha256
    assert (read["evil"].position, read["evil"].normalised, read["evil"].sites) == ("prompt_mean", True, ())
    for one, other in zip(read["harm"].sites, SITES, strict=True):
        assert (one.place, one.normalised, one.absent) == (other.place, True, other.absent)
        assert np.array_equal(one.weights, other.weights)


def test_every_part_of_a_read_out_counts_for_the_hash():
    fingerprint = hand_made_vectors().provenance.fingerprint
    made = [
        vector(),
        vector(position="user_mean"),
        vector(normalised=True),
        summed(*SITES),
        summed(*SITES[:2]),
        summed(site(2), SITES[0], SITES[2]),
        summed(*SITES[:2], site(4, "tool_mean", absent=0.5)),
        summed(*SITES[:2], site(4, "tool_mean", absent=-0.5, normalised=False)),
        summed(*SITES[:2], site(4, "tool_mean", absent=-0.5, weights=SITES[0].weights)),
    ]
    provenance = Provenance(fingerprint=fingerprint, method="hand", created="now")
    assert len({TraitVectors({"evil": one}, provenance).sha256 for one in made}) == len(made)


def test_only_files_with_new_read_outs_are_closed_to_older_versions():
    assert version({"evil": vector(unusable=(4,), layer=2)}) == "1"
    assert {version({"evil": one}) for one in (vector(position="user_mean"), summed(*SITES))} == {"2"}


@pytest.mark.parametrize(
    ("sites", "reason"),
    [
        ([site(2), site(5)], "layer 5 is not a usable layer"),
        ([site(0), site(2)], "layer 0 has no usable layer"),
        ([site(4), site(2)], "in the order of their layers"),
        ([site(2), site(2)], "user_mean at layer 2 is read by two sites"),
        ([site(2, "first")], "position 'first' is not one of last"),
        ([site(2, weights=np.ones(3, np.float32))], "do not fit a width of 32"),
        ([site(2, weights=np.zeros(WIDTH, np.float32))], "zero norm"),
        ([site(2, weights=np.full(WIDTH, np.nan, np.float32))], "NaN or infinite"),
        ([site(2, "tool_mean", absent=float("inf"))], "NaN or infinite"),
        ([site(2, absent=0.1)], "`absent` is for tool_mean only"),
    ],
)
def test_sites_that_cannot_be_read_are_refused(sites, reason):
    with pytest.raises(VectorError, match=reason):
        summed(*sites)


def test_the_chosen_layer_is_that_of_the_last_site():
    with pytest.raises(VectorError, match="layer 3 is not that of the last site, 2"):
        summed(site(2), layer=3)
    with pytest.raises(VectorError, match="layer None is not that of the last site"):
        summed(site(2), layer=None)
    with pytest.raises(VectorError, match="the site at layer 2 has no usable layer"):
        summed(site(2), site(3), unusable=(2,))
    with pytest.raises(VectorError, match="position 'first'"):
        vector(position="first")


def test_a_sum_detects_at_its_layer_and_a_row_elsewhere():
    made = summed(*SITES, position="prompt_mean")
    states = {place: np.random.default_rng(7).normal(size=(3, WIDTH)).astype(np.float32) for place in PLACES}
    units = {place: unit(rows) for place, rows in states.items()}
    expected = made.offset[4] + sum(units[s.place] @ s.weights for s in SITES)
    np.testing.assert_allclose(made.probe_at(4).projection(states), expected, rtol=1e-5)
    row = states[2, "prompt_mean"] @ made.probe[2] + made.offset[2]
    np.testing.assert_allclose(made.probe_at(2).projection(states), row, rtol=1e-5)


def test_nothing_to_read_adds_what_the_site_says():
    states = {place: np.ones((2, WIDTH), np.float32) for place in PLACES}
    with_results = summed(*SITES).probe_at(4).projection(states)
    states[4, "tool_mean"][1] = np.nan
    found = summed(*SITES).probe_at(4).projection(states)
    assert found[0] == with_results[0]
    assert found[1] == pytest.approx(found[0] - SITES[2].product(states[4, "tool_mean"][:1])[0] - 0.5)
    alone = vector(position="tool_mean", offset=np.full(ROWS, 3, np.float32)).probe_at(4)
    assert alone.projection(states)[1] == 0
