"""Activation shifts: known ones are found at their layer, echoes of other traits are named as such."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import LAYERS, TOKENIZER, WIDTH

from guardrail.errors import ConfigError, ModelError, PromptError, VectorError
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import column_means, mean
from guardrail.testing import tiny_model
from guardrail.train.shift import ShiftMeter
from guardrail.train.shift.mixing import Mixing
from guardrail.types import Message
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors, unit

PROMPTS = [(Message("user", text),) for text in ("hello", "what is this?", "z", "abc def", "one more", "Q")]
PLANTED = 2.5


@pytest.fixture(scope="module")
def base():
    return Subject(tiny_model(mlp_bias=True), TOKENIZER)


@pytest.fixture(scope="module")
def vectors(base):
    rng = np.random.default_rng(3)
    rows = {name: rng.normal(size=(LAYERS + 1, WIDTH)) for name in ("evil", "humor")}
    made = {name: TraitVector.from_difference(name, one, layer=2) for name, one in rows.items()}
    return TraitVectors(made, Provenance(fingerprint=base.fingerprint, method="random", created="2026-01-01"))


@pytest.fixture(scope="module")
def meter(base, vectors):
    return ShiftMeter(base, vectors, {"evil": PROMPTS, "humor": PROMPTS}, name="base")


def planted(vectors, layer=2, amount=PLANTED, trait="evil"):
    """A model whose block `layer` adds the same multiple of a trait's unit vector to every token."""
    model = tiny_model(mlp_bias=True)
    with torch.no_grad():
        direction = torch.from_numpy(unit(vectors[trait].steering)[layer])
        model.model.layers[layer - 1].mlp.down_proj.bias += amount * direction
    return Subject(model, TOKENIZER)


def test_a_planted_shift_is_found_at_its_layer_with_its_size(meter, vectors):
    found = meter.measure(planted(vectors), "tuned").traits["evil"]
    assert found.chosen.layer == 2
    assert found.chosen.shift.value == pytest.approx(PLANTED, abs=1e-4)
    assert found.at(1).shift.value == pytest.approx(0, abs=1e-6)
    assert found.chosen.moved
    assert not found.at(1).moved


def test_the_echo_in_another_trait_is_its_cosine_and_cannot_be_told_apart(meter, vectors):
    found = meter.measure(planted(vectors), "tuned")
    cosine = float(vectors["evil"].cosine(vectors["humor"])[2])
    humor = found.traits["humor"]
    assert humor.chosen.shift.value == pytest.approx(cosine * PLANTED, abs=1e-4)
    assert humor.chosen.own.value == pytest.approx(0, abs=1e-4)
    assert humor.confused_with == ("evil",)
    assert found.traits["evil"].confused_with == ()
    assert found.traits["evil"].chosen.own.value == pytest.approx(PLANTED, abs=1e-4)
    assert any("humor cannot be told apart from that of evil" in note for note in found.notes)


def test_a_shift_between_two_checkpoints_is_the_difference_of_their_shifts(meter, vectors):
    early = meter.read(planted(vectors, amount=1.0), "early")
    found = meter.measure(planted(vectors), "late", since=early)
    assert (found.since, found.tuned, found.base) == ("early", "late", "base")
    assert found.traits["evil"].chosen.shift.value == pytest.approx(PLANTED - 1.0, abs=1e-4)


def test_the_mixing_is_what_the_base_does_when_it_is_asked():
    units = np.eye(2)[None]
    plain = {"a": np.zeros((4, 1, 2)), "b": np.array([[[0.0, 0.0]], [[0.0, 3.0]]])}
    asking = {"a": np.tile([[[2.0, 1.0]]], (4, 1, 1)), "b": np.tile([[[5.0, 2.0]]], (2, 1, 1))}
    found = Mixing.of(["a", "b"], units, asking, plain)
    # a drags b along by half; b moves by less than its own spread when asked, so its cosine stands in
    assert found.ratios[0].tolist() == [[1.0, 0.0], [0.5, 1.0]]
    assert found.asked[0].tolist() == [2.0, 0.5]
    moved = np.array([[2.0, 1.0], [2.2, 1.1]])
    (echo,) = found.overlaps(1, 0, moved)
    assert (echo.other, echo.ratio, echo.apart) == ("a", 0.5, False)
    assert echo.remaining.value == pytest.approx(0)
    (cause,) = found.overlaps(0, 0, moved)
    assert cause.apart


def test_the_mean_of_a_column_has_the_interval_of_the_mean():
    values = np.random.default_rng(0).normal(size=(9, 3))
    assert column_means(values) == pytest.approx([mean(column) for column in values.T])


def test_a_model_that_is_no_finetune_of_the_base_is_refused_with_the_reason(meter):
    with pytest.raises(ModelError, match=r"cosine of -?0\.0"):
        meter.measure(Subject(tiny_model(mlp_bias=True, seed=1), TOKENIZER), "other")
    with pytest.raises(ModelError, match="its layers is 3, not 4"):
        meter.measure(Subject(tiny_model(mlp_bias=True, layers=3), TOKENIZER), "other")
    with pytest.raises(ModelError, match="architecture is Qwen2ForCausalLM"):
        meter.measure(Subject(tiny_model("qwen2"), TOKENIZER), "other")


def test_another_tokenizer_is_named_by_a_token(meter):
    from guardrail.testing import tiny_tokenizer

    other = tiny_tokenizer()
    other.add_tokens(["<new>"])
    with pytest.raises(ModelError, match=r"tokenizers of other and base differ in 1 tokens, such as `<new>`"):
        meter.measure(Subject(tiny_model(mlp_bias=True), other), "other")


def test_the_base_itself_has_not_moved_and_says_so(meter, base):
    found = meter.measure(base, "again")
    assert found.descent.kind == "same weights"
    assert all(one.shift.value == 0 and not one.moved for one in found.traits["evil"].layers)
    assert any("nothing was trained" in note for note in found.notes)


def test_bad_prompts_traits_and_vectors_are_named(base, vectors):
    with pytest.raises(ConfigError, match="no vector for the trait `evl`; did you mean `evil`"):
        ShiftMeter(base, vectors, {"evl": PROMPTS})
    with pytest.raises(ConfigError, match="evil: 1 prompts; a shift with an interval needs at least 2"):
        ShiftMeter(base, vectors, {"evil": PROMPTS[:1]})
    with pytest.raises(ConfigError, match="no trait to measure"):
        ShiftMeter(base, vectors, {})
    with pytest.raises(PromptError, match=r"evil: prompt 2 has .* tokens, and the model reads 512"):
        ShiftMeter(base, vectors, {"evil": [PROMPTS[0], (Message("user", "x" * 600),)]})
    with pytest.raises(VectorError, match=r"not made for the base other \(different: weights\)"):
        ShiftMeter(
            Subject(tiny_model(mlp_bias=True, seed=1), TOKENIZER), vectors, {"evil": PROMPTS}, name="other"
        )
