"""Choosing a layer from hand-made sweeps, and sweep files: ours and the published shape."""

import json
import math
from dataclasses import replace

import pytest

from guardrail.errors import ConfigError, ExtractionError, VectorError
from guardrail.extract.layers.files import load_sweep, published
from guardrail.extract.layers.measurements import FORMAT, Candidate, Sweep, log_odds, with_layer
from guardrail.extract.layers.selection import by_refusal, by_separation, by_steering
from guardrail.testing import hand_made_vectors
from guardrail.vectors.provenance import LayerChoice
from guardrail.vectors.values import TraitVectors


def steered(*pairs, layers=None):
    """A sweep with (trait, coherence) at layers 1, 2, ..."""
    found = [Candidate(layer=i, trait=t, coherence=c) for i, (t, c) in enumerate(pairs, start=1)]
    return Sweep(trait="evil", layers=layers or len(found), candidates=tuple(found))


def ablated(*rows, layers=10):
    """A sweep with (layer, ablation, induce, kl)."""
    found = [Candidate(layer=n, ablation=a, induce=i, kl=k) for n, a, i, k in rows]
    return Sweep(trait="evil", layers=layers, candidates=tuple(found))


def test_steering_takes_the_highest_trait_score_of_a_coherent_layer():
    choice = by_steering(steered((10, 95), (60, 90), (99, 40), (70, 75)))
    assert (choice.layer, choice.selector) == (4, "steering")
    assert choice.layers == (1, 2, 3, 4)
    assert choice.scores == (10, 60, None, 70)
    assert "at least 75" in choice.rule


def test_the_floor_is_a_parameter_and_may_be_left_out():
    sweep = steered((10, 95), (60, 90), (99, 40), (70, 75))
    assert by_steering(sweep, floor=80).layer == 2
    assert by_steering(sweep, floor=None).layer == 3
    assert "coherence" not in by_steering(sweep, floor=None).rule


def test_ties_go_to_the_earlier_layer():
    assert by_steering(steered((10, 90), (60, 80), (60, 99))).layer == 2
    assert by_refusal(ablated((3, -5, 1, 0), (2, -5, 1, 0))).layer == 2
    same = [Candidate(layer=n, auroc=1.0, d_prime=2.0) for n in (3, 1, 2)]
    assert by_separation(Sweep(trait="evil", layers=3, candidates=tuple(same))).layer == 1


def test_no_coherent_layer_is_an_error_that_says_so():
    with pytest.raises(ExtractionError, match=r"of 2 candidates, 2 have coherence below 75"):
        by_steering(steered((90, 60), (99, 40)))


def test_a_layer_that_does_nothing_is_not_chosen():
    idle = replace(steered((20.0, 99), (30.0, 60), (18.0, 99)), baseline=Candidate(layer=0, trait=20.0))
    message = (
        "of 3 candidates, 2 do not raise the trait above 20, its score without any vector, 1 have coherence"
    )
    with pytest.raises(ExtractionError, match=message):
        by_steering(idle)
    assert by_steering(idle, floor=50).layer == 2


def test_what_was_not_judged_is_not_zero():
    assert by_steering(steered((None, 90), (1, 90))).layer == 2
    with pytest.raises(ExtractionError, match="no results for steering"):
        by_steering(steered((None, 90)))
    with pytest.raises(ExtractionError, match="no results for coherence; choose without a floor"):
        by_steering(steered((50, None)))
    with pytest.raises(ExtractionError, match="1 have coherence below 75, 1 have no coherence"):
        by_steering(steered((50, 20), (60, None)))


def test_separation_decides_perfect_layers_by_their_distance():
    found = [
        Candidate(layer=1, auroc=0.9, d_prime=9.0),
        Candidate(layer=2, auroc=1.0, d_prime=4.0),
        Candidate(layer=3, auroc=1.0, d_prime=5.0),
    ]
    choice = by_separation(Sweep(trait="evil", layers=3, candidates=tuple(found)))
    assert (choice.layer, choice.scores) == (3, (0.9, 1.0, 1.0))


def test_the_refusal_rule_takes_the_least_ablation_score_of_what_passes():
    sweep = ablated((1, -2, 1, 0.05), (2, -9, 1, 0.2), (3, -8, -0.1, 0.0), (4, -5, 0.0, 0.1), (8, -99, 9, 0))
    choice = by_refusal(sweep)
    assert choice.layer == 4, "exactly at a limit passes"
    assert choice.scores == (2, None, None, 5, None), "the negated ablation score, since less is better"


@pytest.mark.parametrize(("layers", "first_dropped"), [(10, 8), (18, 14), (32, 25), (5, 4), (6, 4)])
def test_the_last_fifth_begins_where_the_published_code_begins_it(layers, first_dropped):
    rows = [(layer, -layer, 1, 0) for layer in range(1, layers + 1)]
    assert by_refusal(ablated(*rows, layers=layers)).layer == first_dropped - 1


def test_no_candidate_left_by_the_refusal_rule_names_every_reason():
    with pytest.raises(ExtractionError) as caught:
        by_refusal(ablated((1, -2, 1, 0.5), (2, -9, -1, 0), (9, -8, 1, 0.0), (3, None, 1, 0)))
    for part in (
        "1 have a KL",
        "1 induce the trait below",
        "1 are in the last layers, from 8 on",
        "1 were not",
    ):
        assert part in str(caught.value)


def rows(*entries):
    keys = ("position", "layer", "refusal_score", "steering_score", "kl_div_score")
    return [dict(zip(keys, entry, strict=True)) for entry in entries]


PUBLISHED = rows(
    (-2, 0, 5.0, -9.0, 0.0),
    (-2, 1, -7.0, 1.0, 8.0),
    (-2, 2, -3.0, 2.0, 0.05),
    (-2, 3, -6.0, 3.0, 0.02),
    (-2, 4, -9.0, 8.0, 0.01),
    (-1, 0, 5.0, -9.0, 0.0),
    (-1, 1, -8.0, -1.0, 0.0),
    (-1, 2, -6.5, 0.5, 0.1),
    (-1, 3, math.nan, 3.0, 0.02),
    (-1, 4, -9.5, 8.5, 0.01),
)


def test_a_published_file_is_chosen_from_by_its_own_rule(tmp_path):
    (tmp_path / "direction_evaluations.json").write_text(json.dumps(PUBLISHED))
    sweep = load_sweep(tmp_path / "direction_evaluations.json", "refusal")
    assert (sweep.layers, sweep.origin) == (5, "refusal_direction")
    assert len(sweep.candidates) == 8, "the embedding output is no layer"
    choice = by_refusal(sweep)
    assert (choice.layer, choice.position) == (2, -1)


def test_a_published_file_is_chosen_from_by_steering_where_no_coherence_is_asked():
    sweep = published(PUBLISHED, "refusal")
    choice = by_steering(sweep, floor=None)
    assert (choice.layer, choice.position) == (4, -1)
    assert max(score for score in choice.scores if score is not None) == pytest.approx(
        100 / (1 + math.exp(-8.5))
    )
    with pytest.raises(ExtractionError, match="no results for coherence"):
        by_steering(sweep)
    with pytest.raises(ExtractionError, match="no results for separation"):
        by_separation(sweep)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "the list is empty"),
        ('[{"position": -1}]', "every entry needs the numbers position"),
        (json.dumps(rows((-1, -3, 0.0, 0.0, 0.0))), "invalid place"),
        (json.dumps(rows((-1, 1, 0.0, 0.0, 0.0)) * 2), "one candidate per layer and position"),
        ("{}", "not a layer sweep"),
        ('"text"', "neither a layer sweep nor a list"),
        ("no json", "cannot be read as JSON"),
        ('{"format": "guardrail-layer-sweep", "version": 1}', "a damaged layer sweep"),
        ('{"format": "guardrail-layer-sweep", "version": 2}', "version 1"),
    ],
)
def test_files_that_are_no_sweeps_are_refused(tmp_path, content, message):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_sweep(tmp_path / "s.json", "evil")


def test_our_sweeps_come_back_and_belong_to_one_trait(tmp_path):
    sweep = replace(steered((10.0, 95.0), (None, 90.5)), baseline=Candidate(layer=0, trait=3.0), judge="demo")
    sweep.save(tmp_path / "s.json")
    again = load_sweep(tmp_path / "s.json", "evil")
    assert again == sweep
    assert again.sha256 == sweep.sha256
    assert by_steering(again) == by_steering(sweep)
    with pytest.raises(ConfigError, match="a sweep of 'evil', not of 'humor'"):
        load_sweep(tmp_path / "s.json", "humor")


def test_a_sweep_from_before_intervals_keeps_its_hash(tmp_path):
    old = {"layer": 1, "trait": 40.0, "coherence": 90.0, "auroc": 0.9, "d_prime": 2.0}
    path = tmp_path / "sweep.json"
    head = {"format": FORMAT, "version": 1, "trait": "evil", "layers": 2}
    path.write_text(json.dumps({**head, "candidates": [old]}))
    found = load_sweep(path)
    assert found.separation is None
    assert found.sha256 == "1b0c5a09fc29e936c408fa3540ead64f5e7126cb8c195e1ad75b7edc3037b668"
    found.save(path)
    assert "_interval" not in path.read_text()


def test_a_sweep_has_only_layers_of_its_model():
    with pytest.raises(ConfigError, match="layer 3 does not exist in a model with 2 layers"):
        steered((1, 1), (1, 1), (1, 1), layers=2)


def test_log_odds_are_zero_in_the_middle_and_finite_at_the_ends():
    assert log_odds(50) == 0
    assert log_odds(100) == pytest.approx(-log_odds(0)) == pytest.approx(math.log(199))


def test_a_choice_becomes_what_auto_means(tmp_path):
    vectors = hand_made_vectors(("evil", "humor"))
    choice = by_steering(steered((10, 95), (60, 90), (20, 90), (5, 90)))
    made = with_layer(vectors, "evil", choice)
    made.save(tmp_path / "v.safetensors")
    again = TraitVectors.load(tmp_path / "v.safetensors")
    assert (again["evil"].layer, again["humor"].layer) == (2, vectors["humor"].layer)
    assert again.provenance.layer_choices == {"evil": choice}
    assert again.sha256 != vectors.sha256


def test_a_choice_has_to_fit_the_vectors():
    choice = LayerChoice(selector="steering", rule="", layer=9, layers=(9,), scores=(1.0,), sweep_sha256="")
    with pytest.raises(VectorError, match="layer 9 is not a usable layer"):
        with_layer(hand_made_vectors(("evil",)), "evil", choice)
    with pytest.raises(ConfigError, match="no vector for the trait `envy`"):
        with_layer(hand_made_vectors(("evil",)), "envy", choice)
