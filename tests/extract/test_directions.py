"""What steers, what detects, what orthogonalising costs, and how stable a direction is."""

import numpy as np
import pytest
from extraction import METHODS, settings

from guardrail.errors import ConfigError, VectorError
from guardrail.extract.directions import directions
from guardrail.extract.moments import Moments
from guardrail.extract.probes import Pool, examples, fit_probe, separation
from guardrail.extract.prompts import RolloutPrompt
from guardrail.extract.stability import cosines, stability
from guardrail.types import Message
from guardrail.vectors.orthogonal import orthogonalised
from guardrail.vectors.values import unit

LAYERS, WIDTH = 2, 8
TRAITS = {"evil": 0, "humor": 1}


def prompts(questions=6):
    def one(kind, i, j):
        return RolloutPrompt(
            kind=kind, messages=(Message("user", f"{kind}{i}{j}"),), instruction=i, question=j
        )

    return [
        *(one(kind, i, j) for kind in ("negative", "positive") for i in (0, 1) for j in range(questions)),
        *(one("neutral", -1, j) for j in range(questions)),
    ]


def pool(trait, seed=0, shared=2.0):
    """States [L + 1, n, d]: positive prompts go along the trait's axis and a shared one, the last."""
    rng = np.random.default_rng([seed, TRAITS[trait]])
    made = prompts()
    states = rng.normal(size=(LAYERS + 1, len(made), WIDTH)).astype(np.float32)
    rows = [i for i, prompt in enumerate(made) if prompt.kind == "positive"]
    states[1:, rows, TRAITS[trait]] += 4
    states[1:, rows, -1] += shared
    states[0] = 1.0
    return Pool(trait=trait, prompts=made, states=states)


def moments(trait, seed=0, questions=6, noise=1.0):
    rng = np.random.default_rng([seed, TRAITS[trait], 7])
    made = Moments.empty(questions, LAYERS, WIDTH)
    for question in range(questions):
        for _ in range(4):
            positive, negative = rng.normal(size=(2, 3, LAYERS + 1, WIDTH)).astype(np.float32) * noise
            positive[:, 1:, TRAITS[trait]] += 4
            positive[:, 1:, -1] += 3
            made.add(question, positive, negative)
    return made


POOLS = [pool("evil"), pool("humor")]
HELD_OUT = [pool("evil", 1), pool("humor", 1)]
MOMENTS = {trait: moments(trait) for trait in TRAITS}


def made(**changes):
    return directions(MOMENTS, POOLS, HELD_OUT, METHODS, settings(**changes))


def test_by_default_replies_steer_and_prompts_detect():
    for trait, found in made().items():
        assert np.array_equal(found.steering, MOMENTS[trait].difference("response_mean"))
        assert np.allclose(np.linalg.norm(found.probe.probe[1:], axis=1), 1, atol=1e-5)
        assert not np.allclose(found.probe.probe[1:], unit(found.steering)[1:], atol=0.05)
        assert found.untangled is None


def test_the_steering_vector_itself_may_detect():
    for found in made(probe="steering").values():
        assert np.array_equal(found.probe.probe, unit(found.steering))


def test_the_offset_puts_neutral_prompts_at_zero():
    for found in made().values():
        for layer in (1, 2):
            neutral = np.concatenate([one.at(layer, "neutral") for one in POOLS])
            projections = neutral @ found.probe.probe[layer] + found.probe.offset[layer]
            assert projections.mean() == pytest.approx(0, abs=1e-5)


def test_positive_and_negative_prompts_correspond_row_by_row():
    seen = examples("evil", POOLS, 1)
    own = POOLS[0]
    places = {(p.kind, p.instruction, p.question): i for i, p in enumerate(own.prompts)}
    for row, key in enumerate([(i, j) for i in (0, 1) for j in range(6)]):
        assert np.array_equal(seen.positive[row], own.states[1][places["positive", *key]])
        assert np.array_equal(seen.negative[row], own.states[1][places["negative", *key]])
    assert len(seen.neutral) == 12
    assert [len(other) for other in seen.others] == [12]
    assert np.isnan(seen.scores).all()


def test_separation_tells_plain_prompts_and_other_traits_apart():
    axes = np.zeros((LAYERS + 1, WIDTH), np.float32)
    axes[:, 0] = 1
    shared = np.zeros_like(axes)
    shared[:, -1] = 1
    own, common = (separation(rows, "evil", HELD_OUT) for rows in (axes, shared))
    assert min(own.own + own.others) > 0.97
    assert min(common.own) > 0.8
    assert max(common.others) < 0.75, "what is only `not neutral` tells no trait from another"
    assert separation(axes, "evil", HELD_OUT[:1]).others == ()


def test_a_contrast_probe_tells_traits_apart_better_than_the_difference_of_one():
    strong = [pool(trait, shared=8.0) for trait in TRAITS]
    held_out = [pool(trait, 1, shared=8.0) for trait in TRAITS]
    areas = [
        separation(fit_probe(METHODS[name], "evil", strong).probe, "evil", held_out).others[0]
        for name in ("difference", "contrast")
    ]
    assert areas[1] > areas[0]


@pytest.mark.parametrize("method", ["pca", "lda", "logistic", "regression", "contrast"])
def test_another_method_may_steer_at_the_length_of_the_difference(method):
    for trait, found in made(steering=method).items():
        difference = MOMENTS[trait].difference("response_mean")
        assert np.allclose(
            np.linalg.norm(found.steering, axis=1), np.linalg.norm(difference, axis=1), rtol=1e-4
        )
        assert (cosines(found.steering, difference)[1:] > 0.5).all()


def test_orthogonalised_directions_are_orthogonal_keep_their_length_and_say_the_cost():
    raw, found = made(), made(orthogonalise=True)
    steering = {trait: one.steering for trait, one in found.items()}
    assert np.allclose(cosines(*steering.values()), 0, atol=1e-5)
    for trait, one in found.items():
        before = raw[trait].steering
        assert np.allclose(np.linalg.norm(one.steering, axis=1), np.linalg.norm(before, axis=1), rtol=1e-4)
        assert one.untangled is not None
        assert one.untangled.cosine == pytest.approx(cosines(one.steering, before)[1:], abs=1e-3)
        assert all(0.8 < value < 0.99 for value in one.untangled.cosine)
        assert one.untangled.auroc_after >= one.untangled.auroc_before


def test_orthogonalising_is_symmetric_and_the_nearest_orthonormal_set():
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=(1, 5)) for name in "abc"}
    found = orthogonalised(rows)
    backwards = orthogonalised(dict(reversed(rows.items())))
    assert all(np.allclose(found[name], backwards[name], atol=1e-6) for name in rows)
    u, _, vt = np.linalg.svd(
        np.stack([unit(rows[name].astype(np.float32))[0] for name in rows]), full_matrices=False
    )
    expected = u @ vt  # the polar factor
    assert np.allclose([unit(found[name])[0] for name in rows], expected, atol=1e-5)


def test_orthogonal_directions_stay_and_zero_rows_too():
    rows = {"a": np.array([[0.0, 0.0], [2.0, 0.0]]), "b": np.array([[0.0, 0.0], [0.0, 3.0]])}
    assert all(np.allclose(orthogonalised(rows)[name], rows[name]) for name in rows)


def test_dependent_directions_cannot_be_made_orthogonal():
    with pytest.raises(VectorError, match="linearly dependent at layer 0"):
        orthogonalised({"a": np.ones((1, 3)), "b": 2 * np.ones((1, 3))})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"probe": "contrst"}, "unknown probe method `contrst`.*contrast"),
        ({"steering": "steering"}, "unknown steering method"),
        ({"position": "last"}, "unknown position"),
        ({"orthogonalise": True}, "at least two traits"),
        ({"minimum": 0}, "1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        settings(**changes).check(METHODS, 1)


def test_a_clean_direction_is_stable_and_noise_is_not():
    clean, noisy = (stability(moments("evil", noise=n), "response_mean") for n in (0.1, 20.0))
    assert clean is not None
    assert noisy is not None
    assert min(clean.split_half[1:]) > 0.99
    assert min(clean.bootstrap_low[1:]) > 0.99
    assert max(noisy.split_half[1:]) < 0.8
    assert max(noisy.bootstrap_low[1:]) < 0.95
    assert clean.questions == 6


def test_split_halves_are_those_of_disjoint_questions():
    made = moments("evil")
    found = stability(made, "response_mean")
    halves = []
    for start in (0, 1):
        half = Moments.empty(6, LAYERS, WIDTH)
        half.sums[start::2], half.counts[start::2] = made.sums[start::2], made.counts[start::2]
        halves.append(half.difference("response_mean"))
    assert found is not None
    assert found.split_half == pytest.approx(cosines(*halves), abs=1e-4)


def test_one_question_has_no_stability():
    assert stability(moments("evil", questions=1), "response_mean") is None


def test_relative_norm_is_that_of_the_difference_to_a_states():
    made = Moments.empty(2, 1, 2)
    for question in (0, 1):
        made.add(question, np.full((3, 2, 2), [3.0, 4.0]), np.zeros((3, 2, 2)))
    found = stability(made, "response_mean")
    assert found is not None
    assert found.relative_norm == pytest.approx((2.0, 2.0))
