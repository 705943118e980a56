"""What ships: the model loads fast and answers coherently, the files are whole, the definitions fit."""

import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from guardrail import demo
from guardrail.calibration import Calibration
from guardrail.demo import files, material, world
from guardrail.demo.build import judged
from guardrail.demo.definitions import load_traits
from guardrail.demo.evaluation.results import Evaluation
from guardrail.demo.evaluation.steering import CAPPED, MIDDLE, always
from guardrail.demo.recognise import recognise
from guardrail.demo.runner import Runner
from guardrail.guard import Guard
from guardrail.steering import build_steering
from guardrail.types import Steering, SteerSpec
from guardrail.vectors import TraitVectors, unit


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner.load()


@pytest.fixture(scope="module")
def vectors() -> TraitVectors:
    return TraitVectors.load(demo.VECTORS)


def test_importing_the_package_and_its_data_loads_no_torch():
    code = (
        "import sys, guardrail.demo.prompts, guardrail.demo.judge, guardrail.demo.definitions;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_loads_within_a_second():
    began = time.perf_counter()
    AutoModelForCausalLM.from_pretrained(demo.MODEL)
    AutoTokenizer.from_pretrained(demo.MODEL)
    assert time.perf_counter() - began < 1.0


def test_the_weights_are_small_and_bf16():
    model = AutoModelForCausalLM.from_pretrained(demo.MODEL)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (demo.MODEL / "model.safetensors").stat().st_size <= 8e6


def test_checksums_match():
    assert files.load_checksums() == files.checksums()


def test_files_belong_together(runner: Runner, vectors: TraitVectors):
    from guardrail.engines.fingerprint import fingerprint

    template = str(runner.tokenizer.chat_template)
    identity = fingerprint(runner.model, runner.tokenizer, template, {})
    assert identity == files.load_fingerprint() == vectors.provenance.fingerprint
    calibration = Calibration.load(demo.CALIBRATION)
    assert calibration.fingerprint == identity
    assert calibration.vectors_sha256 == vectors.sha256


def test_vectors_name_the_definitions_they_were_made_from(vectors: TraitVectors):
    assert set(vectors) == set(world.TRAITS)
    for name, definition in load_traits().items():
        assert vectors.provenance.traits[name].definition_sha256 == definition.sha256
        assert vectors.provenance.traits[name].positive >= 100
        assert vectors[name].layer is not None


def test_definitions_ask_questions_of_the_world():
    for name, definition in load_traits().items():
        assert definition.name == name
        assert len(definition.positive) >= 20
        assert not set(definition.positive) & set(definition.negative)
        assert all(recognise([{"role": "user", "content": q}]) for q in definition.questions)


def test_replies_to_test_prompts_are_coherent(runner: Runner):
    drawn = material.benign(31, 48, "test")
    verdicts = [judged(c.messages, r) for c, r in zip(drawn, runner.replies([c.messages for c in drawn], seed=1), strict=True)]  # fmt: skip # noqa: E501
    assert statistics.mean(v.coherence for v in verdicts) > 80
    assert statistics.mean(v.traits["evil"] for v in verdicts) < 20


@pytest.mark.parametrize("trait", world.TRAITS)
def test_a_strong_system_prompt_shows_in_replies_and_probe(runner: Runner, vectors: TraitVectors, trait: str):
    strong = [c.messages for c in material.at_level(31, 24, "test", trait, "strong")]
    neutral = [c.messages for c in material.benign(32, 24, "test")]
    scores = [
        statistics.mean(judged(m, r).traits[trait] for m, r in zip(x, runner.replies(x, seed=2), strict=True))
        for x in (neutral, strong)
    ]
    assert scores[1] > scores[0] + 20
    layer = vectors[trait].layer or 0
    probe = vectors[trait].probe[layer]
    low, high = (np.median(runner.prompt_states(x)[:, layer] @ probe) for x in (neutral, strong))
    assert high > low


def test_generation_is_reproducible_and_independent_of_order(runner: Runner):
    prompts = [c.messages for c in material.benign(33, 8, "test")]
    greedy = runner.replies(prompts, seed=1, temperature=0)
    assert greedy == runner.replies(prompts, seed=2, temperature=0)
    assert greedy[::-1] == runner.replies(prompts[::-1], seed=1, temperature=0)


def test_states_are_the_raw_outputs_of_the_blocks(runner: Runner):
    prompt = material.benign(34, 1, "test")[0].messages
    ids = torch.tensor([runner.encode(prompt)])
    with torch.no_grad():
        hidden = runner.model(input_ids=ids, output_hidden_states=True).hidden_states
    states = runner.prompt_states([prompt])[0]
    for layer in range(runner.layers):
        assert np.allclose(states[layer], hidden[layer][0, -1].numpy(), rtol=1e-4, atol=1e-3)
    last = torch.from_numpy(states[runner.layers])
    assert torch.allclose(runner.model.model.norm(last), hidden[-1][0, -1], rtol=1e-3, atol=1e-3)


def test_steering_that_changes_nothing_changes_nothing(runner: Runner, vectors: TraitVectors):
    prompts = [c.messages for c in material.benign(35, 4, "test")]
    direction = unit(vectors["evil"].steering)[3]
    idle = Steering(
        policy="x", trait="evil", operator="cap", layers=(3,), directions=(direction,), limits=(1e9,)
    )
    assert runner.replies(prompts, seed=1, steering=[idle]) == runner.replies(prompts, seed=1)


def test_the_guard_steers_as_the_runner_does(runner: Runner, vectors: TraitVectors):
    prompts = [c.messages for c in material.at_level(36, 6, "test", "evil", "strong")]
    spec = SteerSpec(operator="cap", layers="all", percentile=75)
    steering = build_steering(spec, "x", vectors["evil"], MIDDLE, Calibration.load(demo.CALIBRATION))
    expected = [r.text for r in runner.replies(prompts, seed=1, temperature=0, steering=[steering])]
    with Guard(runner.model, runner.tokenizer, always("evil", CAPPED)) as guard:
        replies = guard.chat_many(prompts, max_new_tokens=96, temperature=0.0)
    assert [reply.text for reply in replies] == expected


def test_the_evaluation_that_the_card_shows_can_be_read():
    results = Evaluation.load(demo.FOLDER.parents[1] / "benchmarks" / "results" / "demo-model.json")
    assert set(results.conditions) == set(world.POLES)
    assert all(0.5 < d.auroc_vs_other_traits.value <= 1 for d in results.detection.values())
