"""Sweeps on a tiny model whose residual stream is what its embeddings and our steering put there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TOKENIZER

from guardrail.errors import ConfigError, ExtractionError, JudgeError, VectorError
from guardrail.extract.layers.effects import SweepSettings, Trial, divergence, next_token
from guardrail.extract.layers.measurements import merged
from guardrail.extract.layers.selection import by_refusal, by_separation, by_steering
from guardrail.extract.layers.sweep import (
    Questions,
    check_folder,
    sweep_ablation,
    sweep_separation,
    sweep_steering,
)
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import COHERENCE
from guardrail.testing import tiny_model
from guardrail.traits import InstructionPair, TraitDefinition
from guardrail.vectors.values import TraitVector

LAYERS, WIDTH = 4, 32
TRAIT_AXIS, PLAIN_AXIS, BROKEN_AXIS = 0, 1, 2
LETTERS = {TRAIT_AXIS: "y", PLAIN_AXIS: "n", BROKEN_AXIS: "z"}
DEFINITION = TraitDefinition(
    name="evil",
    description="says y",
    instructions=(InstructionPair(positive="be bad", negative="be good"),) * 2,
    extraction=("one?", "two?"),
    evaluation=("three?", "four?", "five?"),
    rubric="{question}{answer}",
    sha256="d",
)
SETTINGS = SweepSettings(samples=2, max_new_tokens=6, temperature=0.0)


class LetterJudge:
    """The trait is the share of y and z, coherence that of anything but z."""

    name = "letters"

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = 0, fails_at

    def scores(self, requests):
        self.calls += 1
        if self.calls == self.fails_at:
            raise JudgeError("gone")
        return [self._score(request) for request in requests]

    def _score(self, request):
        share = {letter: request.answer.count(letter) / len(request.answer) for letter in "yz"}
        return 100 * (1 - share["z"]) if request.metric == COHERENCE else 100 * (share["y"] + share["z"])


def model(start=PLAIN_AXIS):
    """Blocks write nothing, every axis in LETTERS makes its letter, and replies begin on the axis `start`."""
    made = tiny_model(layers=LAYERS, d_model=WIDTH)
    embedding, head = made.model.embed_tokens.weight, made.lm_head.weight
    with torch.no_grad():
        for block in made.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        embedding.mul_(0.01)
        head.zero_()
        for axis, letter in LETTERS.items():
            token = TOKENIZER(letter, add_special_tokens=False)["input_ids"][0]
            head[token, axis] = 10.0
            embedding[token, PLAIN_AXIS] = 1.0
        embedding[:, PLAIN_AXIS] = 1.0
        embedding[TOKENIZER.convert_tokens_to_ids("<|assistant|>"), start] = 2.0
    return made


def vector(rows):
    """The axis of each layer's direction, from layer 1; all have norm 3, others are of no consequence."""
    steering = np.zeros((LAYERS + 1, WIDTH), np.float32)
    steering[0, 9] = 3.0
    for layer in range(1, LAYERS + 1):
        steering[layer, rows.get(layer, 20 + layer)] = 3.0
    return TraitVector.from_difference("evil", steering)


PLANTED = vector({2: TRAIT_AXIS, 3: BROKEN_AXIS})


def trial(judge=None, start=PLAIN_AXIS):
    return Trial(
        subject=Subject(model(start), TOKENIZER),
        judge=judge or LetterJudge(),
        definition=DEFINITION,
        settings=SETTINGS,
    )


def test_a_planted_direction_is_found_at_the_only_layer_where_it_works(tmp_path):
    sweep = sweep_steering(trial(), PLANTED, tmp_path)
    assert [(c.layer, c.trait, c.coherence) for c in sweep.candidates] == [
        (1, 0, 100),
        (2, 100, 100),
        (3, 100, 0),
        (4, 0, 100),
    ]
    assert (sweep.baseline.layer, sweep.baseline.trait, sweep.baseline.coherence) == (0, 0, 100)
    assert (sweep.replies, sweep.judge, sweep.coefficient) == (6, "letters", 1.0)
    assert [c.trait_interval for c in sweep.candidates] == [(0, 0), (100, 100), (100, 100), (0, 0)]
    assert by_steering(sweep).layer == 2
    assert by_steering(replace(sweep, candidates=sweep.candidates[2:]), floor=None).layer == 3


class QuestionJudge(LetterJudge):
    """The trait depends on the question alone."""

    def _score(self, request):
        return {"three?": 40.0, "four?": 50.0, "five?": 60.0}[request.question]


def test_replies_to_one_question_count_once_in_the_interval_of_the_trait(tmp_path):
    first, *_ = sweep_steering(trial(QuestionJudge()), PLANTED, tmp_path).candidates
    half = 4.3027 * 10 / np.sqrt(3)  # Student's t with 2 degrees of freedom; two replies to each question
    assert first.trait == 50
    assert first.trait_interval == (pytest.approx(50 - half, abs=1e-3), pytest.approx(50 + half, abs=1e-3))


def test_the_coefficient_is_the_same_at_every_layer_and_matters(tmp_path):
    weak = replace(trial(), settings=replace(SETTINGS, coefficient=0.1))
    sweep = sweep_steering(weak, PLANTED, tmp_path)
    assert sweep.coefficient == 0.1
    assert {c.trait for c in sweep.candidates} == {0}


def test_a_sweep_that_broke_off_goes_on_where_it_was(tmp_path):
    whole = sweep_steering(trial(), PLANTED, tmp_path / "whole")
    with pytest.raises(JudgeError, match="gone"):
        sweep_steering(trial(LetterJudge(fails_at=6)), PLANTED, tmp_path / "cut")
    with (tmp_path / "cut" / "steering.jsonl").open("ab") as file:
        file.write(b'{"layer": 2, "tra')
    judge = LetterJudge()
    assert sweep_steering(trial(judge), PLANTED, tmp_path / "cut") == whole
    assert judge.calls == 2 * (1 + LAYERS - 2), "two layers of five were there already"
    names = [tmp_path / folder / "steering.jsonl" for folder in ("whole", "cut")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_folder_of_another_sweep_is_refused(tmp_path):
    sweep_steering(trial(), PLANTED, tmp_path)
    with pytest.raises(ExtractionError, match=r"another recipe: coefficient \(1.0, now 2.0\)"):
        sweep_steering(replace(trial(), settings=replace(SETTINGS, coefficient=2.0)), PLANTED, tmp_path)
    with pytest.raises(ExtractionError, match="another recipe: vector"):
        sweep_steering(trial(), vector({1: TRAIT_AXIS}), tmp_path)


def test_another_sweep_is_found_without_a_model(tmp_path):
    one = trial()
    sweep_steering(one, PLANTED, tmp_path)
    check_folder("refusal", tmp_path, PLANTED, one.definition, one.judge, SETTINGS)
    check_folder("separation", tmp_path, vector({1: TRAIT_AXIS}), one.definition, one.judge, SETTINGS)
    check_folder("steering", tmp_path / "new", PLANTED, one.definition, one.judge, SETTINGS)
    other = replace(SETTINGS, coefficient=2.0)
    with pytest.raises(ExtractionError, match=r"another recipe: coefficient \(1.0, now 2.0\)"):
        check_folder("steering", tmp_path, PLANTED, one.definition, one.judge, other)


def test_layers_that_cannot_be_used_are_not_tried(tmp_path):
    sweep = sweep_steering(trial(), replace(PLANTED, unusable=(1, 4)), tmp_path)
    assert [c.layer for c in sweep.candidates] == [2, 3]


def test_ablation_takes_the_trait_out_with_the_direction_that_carries_it(tmp_path):
    sweep = sweep_ablation(trial(start=TRAIT_AXIS), PLANTED, tmp_path)
    left = {c.layer: c.ablation for c in sweep.candidates}
    assert sweep.baseline.ablation == left[1] == left[3] == left[4]
    assert left[2] < left[1], "replies began with y, and do not any more"
    assert sweep.baseline.kl == 0
    kl = {c.layer: c.kl for c in sweep.candidates}
    assert kl[2] > 1
    assert max(kl[1], kl[3], kl[4]) < 1e-3
    assert sweep.replies == len(DEFINITION.evaluation) * SETTINGS.samples


def test_the_refusal_rule_runs_over_our_own_sweep(tmp_path):
    steering = sweep_steering(trial(), PLANTED, tmp_path)
    ablation = sweep_ablation(trial(), PLANTED, tmp_path)
    both = merged(steering, ablation)
    assert both.candidates[1].induce == pytest.approx(np.log(199))
    assert both.candidates[1].kl == pytest.approx(0, abs=1e-3), "nothing of the trait in plain prompts"
    assert by_refusal(both).layer == 2, "3 is in the last fifth, 1 does not induce the trait"


def test_separation_finds_the_layer_whose_probe_tells_the_prompts_apart():
    subject = Subject(tiny_model(layers=LAYERS, d_model=WIDTH), TOKENIZER)
    questions = Questions.of(DEFINITION)
    states = [
        subject.prompt_states([p.messages for p in prompts]).mean(0)
        for prompts in (questions.positive, questions.negative)
    ]
    rows = np.random.default_rng(0).normal(size=(LAYERS + 1, WIDTH)).astype(np.float32)
    rows[3] = states[0][3] - states[1][3]
    sweep = sweep_separation(subject, TraitVector.from_difference("evil", rows), DEFINITION)
    assert by_separation(sweep).layer == 3
    assert sweep.candidates[2].auroc == 1
    assert sweep.candidates[2].d_prime > 2
    sides = sweep.separation.asking, sweep.separation.forbidding
    assert sides == (6, 6), "two instructions for each of three questions"
    assert sweep.candidates[2].auroc_interval == (pytest.approx(0.025 ** (1 / 6)), 1.0)
    assert sweep.separation.null.p < 0.05
    assert sweep.separation.null.high > 0.8, "the best of four layers, by chance, with six prompts a side"


def test_separation_joins_the_other_measurements(tmp_path):
    steering = sweep_steering(trial(), PLANTED, tmp_path)
    separation = sweep_separation(trial().subject, PLANTED, DEFINITION)
    both = merged(separation, steering)
    assert (both.judge, both.baseline) == ("letters", steering.baseline)
    assert by_steering(both).layer == 2
    assert both.candidates[0].auroc_interval == separation.candidates[0].auroc_interval is not None
    assert both.separation == separation.separation is not None
    with pytest.raises(ConfigError, match="cannot be merged"):
        merged(steering, replace(separation, trait="humor"))


def test_only_held_out_questions_are_asked():
    questions = Questions.of(DEFINITION)
    asked = {p.asked for p in (*questions.plain, *questions.positive, *questions.negative)}
    assert asked == set(DEFINITION.evaluation)
    assert [p.asked for p in questions.asking] == list(DEFINITION.evaluation)
    assert [p.instruction for p in questions.asking] == [0, 1, 0]


def test_vectors_of_another_model_are_refused(tmp_path):
    other = TraitVector.from_difference("evil", np.ones((LAYERS, WIDTH)))
    with pytest.raises(VectorError, match="vectors of 3 layers x 32 do not fit a model of 4 x 32"):
        sweep_steering(trial(), other, tmp_path)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_next_token_does_not_depend_on_padding(architecture):
    subject = Subject(tiny_model(architecture), TOKENIZER)
    prompts = Questions.of(DEFINITION).plain
    together = next_token(subject, prompts)
    alone = torch.cat([next_token(subject, [prompt]) for prompt in prompts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_no_logits_are_computed_before_the_next_token():
    subject, seen = Subject(tiny_model(), TOKENIZER), []
    subject.model.lm_head.register_forward_hook(lambda module, given, logits: seen.append(logits.shape[1]))
    next_token(subject, Questions.of(DEFINITION).plain)
    assert set(seen) == {1}


def test_reading_states_computes_no_logits():
    subject = Subject(tiny_model(), TOKENIZER)
    subject.model.lm_head.register_forward_hook(lambda *given: pytest.fail("logits"))
    assert subject.prompt_states([Questions.of(DEFINITION).plain[0].messages]).any()


def test_divergence_is_that_of_the_distributions():
    plain, changed = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert divergence(plain, changed) == pytest.approx(expected)
    assert divergence(plain, plain) == 0
