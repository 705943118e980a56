"""The steering sweep: which ways there are, what they do, and capability by multiple choice."""

import json
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.engines.transformers.steering import BatchSteering
from guardrail.errors import ConfigError
from guardrail.evaluation import capability
from guardrail.evaluation.speaking import DefinitionSpeaker
from guardrail.evaluation.sweep import COEFFICIENTS, Spoken, sweep, ways_of
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import COHERENCE
from guardrail.report.page import Page
from guardrail.report.sweep import steering_section, strongest
from guardrail.statistics import intervals
from guardrail.testing import hand_made_vectors, tiny_fingerprint, tiny_model, tiny_tokenizer
from guardrail.traits import InstructionPair, TraitDefinition
from guardrail.types import Decision, Steering


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 50)


VECTORS = hand_made_vectors(("evil",))
BENIGN = Benign.of(np.linspace(-1, 1, 200))
CALIBRATION = Calibration(
    fingerprint=tiny_fingerprint(),
    vectors_sha256=VECTORS.sha256,
    population="line",
    created="2026",
    probes={},
    steering={"evil": dict.fromkeys(range(1, 5), BENIGN)},
)


def steered(way, start):
    """What coordinate 0 becomes at the first layer that this way steers."""
    hidden = torch.zeros(1, 1, 32)
    hidden[..., 0] = start
    BatchSteering([Decision(status="evaluated", steering=(way.steering,))]).apply(
        way.steering.layers[0], hidden
    )
    return float(hidden[0, 0, 0])


def test_every_operator_has_eight_coefficients_on_one_several_and_all_layers():
    ways, missing = ways_of(VECTORS["evil"], 2, CALIBRATION)
    assert not missing
    for operator, coefficients in COEFFICIENTS.items():
        assert len(coefficients) >= 8
        for span, layers in (("single", (2,)), ("several", (1, 2, 3)), ("incremental", (1, 2, 3, 4))):
            own = [w for w in ways if (w.operator, w.span) == (operator, span)]
            assert [w.coefficient for w in own] == list(coefficients)
            assert {w.steering.layers for w in own} == {layers}


def test_a_coefficient_means_what_the_module_says():
    ways = {(w.operator, w.span, w.coefficient): w for w in ways_of(VECTORS["evil"], 2, CALIBRATION)[0]}
    assert steered(ways["add", "single", -1.5], 4.0) == pytest.approx(2.5)
    assert steered(ways["ablate", "single", 0.25], 4.0) == pytest.approx(3.0)
    assert steered(ways["ablate", "single", 1.0], 4.0) == pytest.approx(0.0, abs=1e-6)
    assert steered(ways["ablate", "single", 2.0], 4.0) == pytest.approx(-4.0)
    assert steered(ways["cap", "single", 75.0], 4.0) == pytest.approx(0.5, abs=0.02)
    assert steered(ways["cap", "single", 75.0], 0.2) == pytest.approx(0.2)


def test_without_a_calibration_there_is_no_cap_and_it_says_so():
    ways, missing = ways_of(VECTORS["evil"], 2, None)
    assert {way.operator for way in ways} == {"add", "ablate"}
    assert "needs a calibration" in missing[0]


@dataclass
class Fake:
    """A speaker whose trait follows the added coefficient, and that breaks when pushed too far."""

    heard: list = field(default_factory=list)

    def spoken(self, prompts, steering):
        self.heard.append((prompts, steering))
        added = float(steering[0].directions[0][0]) if steering and steering[0].operator == "add" else 0.0
        trait = (80.0 if prompts == "asking" else 5.0) + 20 * added
        coherence = 95.0 if abs(added) < 2 else 30.0
        return Spoken([trait, trait, None], [coherence] * 3, [True, True, False])


def test_the_sweep_measures_the_model_as_it_is_and_every_way():
    speaker, steps = Fake(), []
    found = sweep(VECTORS, {"evil": 2}, {"evil": speaker}, CALIBRATION, 3, lambda: steps.append(1))
    plain = {p.prompts: p.expression.value for p in found.points if p.operator is None}
    assert plain == {"neutral": 5.0, "asking": 80.0}
    assert len(steps) == 72
    assert len(found.points) == 74
    assert {p.unjudged for p in found.points} == {1}
    added = {p.coefficient: p for p in found.points if (p.operator, p.span) == ("add", "single")}
    assert {c: p.prompts for c, p in added.items()} == {c: "neutral" if c > 0 else "asking" for c in added}
    assert added[1.5].expression.value == 35
    assert added[1.5].capability.value == pytest.approx(2 / 3)
    assert not added[2.0].coherent
    best = {(p.operator, p.span, p.prompts): p.coefficient for p in strongest(found.of("evil"))}
    assert best["add", "single", "neutral"] == 1.5
    assert best["add", "single", "asking"] == -1.5


def test_the_trade_off_is_drawn_and_told():
    found = sweep(VECTORS, {"evil": 2}, {"evil": Fake()}, CALIBRATION, 3)
    text = Page(title="t", subtitle="s", sections=[steering_section(found)]).html()
    assert text.count("<figure>") == 1
    assert "one layer" in text
    row = found.as_json()["points"][-1]
    assert {"operator", "span", "coefficient", "expression", "coherence", "capability", "coherent"} <= set(
        row
    )
    assert json.loads(json.dumps(found.as_json()))["replies"] == 3


def test_a_sweep_without_traits_is_refused():
    with pytest.raises(ConfigError, match="no trait to steer"):
        sweep(VECTORS, {}, {}, None, 3)


@pytest.fixture(scope="module")
def subject():
    model = tiny_model()
    with torch.no_grad():
        letter = tiny_tokenizer()("B")["input_ids"][0]
        # coordinate 0 of the last states decides for or against the letter B
        model.lm_head.weight[letter] = 0
        model.lm_head.weight[letter, 0] = 50
    return Subject(model, tiny_tokenizer())


def pushing(amount):
    """Adds to coordinate 0 at the last layer."""
    direction = np.zeros(32, np.float32)
    direction[0] = amount
    return Steering(policy="p", trait="evil", operator="add", layers=(4,), directions=(direction,))


def write(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_the_likeliest_letter_is_the_answer_and_steering_changes_it(subject, tmp_path):
    rows = [{"question": f"{i} is?", "options": ["this", "that", "neither"], "answer": "B"} for i in range(6)]
    choices = capability.read_questions(write(tmp_path / "mc.jsonl", *rows))
    assert "A. this\nB. that\nC. neither" in choices[0].messages[0].content
    away, towards = (capability.right(subject, choices, [pushing(amount)]) for amount in (-30.0, 30.0))
    assert away == [False] * 6
    assert towards == [True] * 6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "q", "options": ["a", "b"], "answer": "C"},
            "`answer` must be 0 to 1 or A to B, not 'C'",
        ),
        ({"question": "q", "options": ["a", "b"], "answer": -1}, "`answer`"),
        ({"question": "q", "options": ["a"], "answer": 0}, "`options`"),
        ({"question": "q", "answer": 0}, "`options`"),
    ],
)
def test_bad_questions_are_named_with_their_line(tmp_path, row, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        capability.read_questions(write(tmp_path / "mc.jsonl", row))
    assert "mc.jsonl:1" in str(error.value)


class Counting:
    """A judge that scores by length, so that every reply has a score of its own."""

    name = "counting"

    def __init__(self):
        self.seen = []

    def scores(self, requests):
        self.seen += requests
        return [float(len(request.answer) % 100) for request in requests]


def test_a_definition_is_asked_by_its_evaluation_questions_only(subject):
    definition = TraitDefinition(
        name="evil",
        description="d",
        instructions=(InstructionPair(positive="be bad", negative="be good"),),
        extraction=("never asked?",),
        evaluation=("why?", "how?", "who?"),
        rubric="{question} {answer}",
        sha256="0",
    )
    judge = Counting()
    speaker = DefinitionSpeaker(
        subject=subject, judge=judge, definition=definition, count=2, choices=(), max_new_tokens=6
    )
    found = speaker.spoken("asking", ())
    assert len(found.trait) == len(found.coherence) == 2
    assert {request.question for request in judge.seen} <= {"why?", "how?"}
    assert {request.metric for request in judge.seen} == {"evil", COHERENCE}
    assert found.capability == ()
