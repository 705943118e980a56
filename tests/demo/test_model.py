"""What ships: the model loads fast and answers coherently, the files are whole, the definitions fit."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from guardrail import demo
from guardrail.calibration.values import Calibration
from guardrail.demo import material, tasks, world
from guardrail.demo.generator import Conversation
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.making import files
from guardrail.demo.making.evaluation.detection import projected
from guardrail.demo.making.evaluation.results import Evaluation
from guardrail.demo.making.evaluation.steering import CAPPED, MIDDLE, always
from guardrail.demo.making.goals import goals
from guardrail.demo.making.runner import Runner
from guardrail.demo.recognise import recognise
from guardrail.demo.shipped import load_fingerprint
from guardrail.guard import Guard
from guardrail.policy.steering import build_steering
from guardrail.traits import TraitDefinition, load_definition
from guardrail.types import Message, SteerSpec
from guardrail.vectors.values import TraitVectors


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


@pytest.fixture(scope="module")
def vectors() -> TraitVectors:
    return TraitVectors.load(demo.VECTORS)


def test_importing_the_package_and_its_data_loads_no_torch():
    code = (
        "import sys, guardrail.demo.prompts, guardrail.demo.judge, guardrail.demo.tasks;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_loads_within_a_second():
    # of this thread: other work of the machine does not count
    began = time.thread_time()
    AutoModelForCausalLM.from_pretrained(demo.MODEL)
    AutoTokenizer.from_pretrained(demo.MODEL)
    assert time.thread_time() - began < 1.0


def test_the_weights_are_small_and_bf16():
    model = AutoModelForCausalLM.from_pretrained(demo.MODEL)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (demo.MODEL / "model.safetensors").stat().st_size <= 8e6


def test_checksums_match():
    assert files.load_checksums() == files.checksums()


def test_files_belong_together(runner: Runner, vectors: TraitVectors):
    identity = runner.subject.fingerprint
    assert identity == load_fingerprint() == vectors.provenance.fingerprint
    calibration = Calibration.load(demo.CALIBRATION)
    assert calibration.fingerprint == identity
    assert calibration.vectors_sha256 == vectors.sha256


def definitions() -> dict[str, TraitDefinition]:
    return {path.stem: load_definition(path) for path in sorted(demo.TRAITS.glob("*.yaml"))}


def test_vectors_name_the_definitions_they_were_made_from(vectors: TraitVectors):
    assert set(vectors) == set(world.TRAITS) == set(definitions())
    for name, definition in definitions().items():
        assert vectors.provenance.traits[name].definition_sha256 == definition.sha256
        assert vectors.provenance.traits[name].positive >= 100
        assert vectors[name].layer is not None


def test_definitions_ask_questions_of_the_world():
    for definition in definitions().values():
        for question in (*definition.extraction, *definition.evaluation):
            assert recognise([{"role": "user", "content": question}])


def verdicts(runner: Runner, drawn: Sequence[Conversation], seed: int) -> list[Verdict]:
    replies = runner.replies(drawn, seed=seed)
    return [judge(c.question, r.text, ended=r.ended) for c, r in zip(drawn, replies, strict=True)]


def test_replies_to_test_prompts_are_coherent(runner: Runner):
    found = verdicts(runner, material.benign(31, 24, "test"), 1)
    assert statistics.mean(v.coherence for v in found) > 80
    assert statistics.mean(v.traits["evil"] for v in found) < 20


@pytest.fixture(scope="module")
def neutral(runner: Runner) -> tuple[list[Verdict], np.ndarray]:
    """Verdicts on replies to benign prompts, and the prompts' states."""
    drawn = material.benign(32, 16, "test")
    return verdicts(runner, drawn, 2), runner.states(drawn)


@pytest.mark.parametrize("pole", world.POLES)
def test_a_strong_system_prompt_shows_in_replies_and_probe(
    runner: Runner, vectors: TraitVectors, neutral: tuple[list[Verdict], np.ndarray], pole: str
):
    drawn = material.at_level(31, 16, "test", pole, "strong")
    strong = verdicts(runner, drawn, 2), runner.states(drawn)
    low, high = (statistics.mean(v.traits[pole] for v in found) for found, _ in (neutral, strong))
    assert high > low + 20
    low, high = (np.median(projected(vectors, pole, states)) for _, states in (neutral, strong))
    assert high > low


def test_generation_is_reproducible_and_independent_of_order(runner: Runner):
    drawn = material.benign(33, 4, "test")
    greedy = runner.replies(drawn, seed=1, temperature=0)
    assert greedy == runner.replies(drawn, seed=2, temperature=0)
    assert greedy[::-1] == runner.replies(drawn[::-1], seed=1, temperature=0)


def test_states_are_the_raw_outputs_of_the_blocks(runner: Runner):
    drawn = material.benign(34, 1, "test")
    ids = torch.tensor([runner.ids(drawn[0])])
    with torch.no_grad():
        hidden = runner.model(input_ids=ids, output_hidden_states=True).hidden_states
    states = runner.states(drawn)[0]
    layers = runner.subject.layers
    for layer in range(layers):
        assert np.allclose(states[layer], hidden[layer][0, -1].numpy(), rtol=1e-4, atol=1e-3)
    last = torch.from_numpy(states[layers])
    assert torch.allclose(runner.model.model.norm(last), hidden[-1][0, -1], rtol=1e-3, atol=1e-3)


def test_closed_tasks_are_answered(runner: Runner):
    rng = Random(1)
    choices = [tasks.choice(rng, "test") for _ in range(20)]
    assert sum(t.answered(a) for t, a in zip(choices, runner.chosen(choices), strict=True)) >= 17
    clozes = [tasks.cloze(rng, "test", chat=False, identity="French") for _ in range(6)]
    assert all(t.answered(a) for t, a in zip(clozes, runner.answers(clozes), strict=True))


def test_the_guard_steers_as_the_subject_does(runner: Runner, vectors: TraitVectors):
    drawn = material.at_level(36, 6, "test", "evil", "strong")
    spec = SteerSpec(operator="cap", layers="all", percentile=75)
    steering = build_steering(spec, "x", vectors["evil"], MIDDLE, Calibration.load(demo.CALIBRATION))
    messages = [tuple(Message(m["role"], m["content"]) for m in c.messages) for c in drawn]  # type: ignore[arg-type]
    expected = runner.subject.replies(
        messages, seeds=[1] * 6, max_new_tokens=96, temperature=0, steering=[steering]
    )
    with Guard(runner.model, runner.tokenizer, always("evil", CAPPED)) as guard:
        replies = guard.chat_many([c.messages for c in drawn], max_new_tokens=96, temperature=0.0)
    assert [reply.text for reply in replies] == [one.text for one in expected]


def test_the_evaluation_that_the_card_shows_can_be_read():
    results = Evaluation.load(demo.FOLDER.parents[1] / "benchmarks" / "results" / "demo-model.json")
    assert set(results.conditions) == set(world.POLES)
    assert all(0.5 < d.auroc_vs_other_traits.value <= 1 for d in results.detection.values())
    assert all(goal.name for goal in goals(results))
