# pyright: basic
"""Measures the demo model, its vectors and its calibration on test phrasings that nothing else ever saw."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import transformers
from pydantic import TypeAdapter

from guardrail.calibration import Calibration
from guardrail.demo import intervals, material, world
from guardrail.demo.build import judged
from guardrail.demo.generator import Condition, Conversation
from guardrail.demo.intervals import Estimate, Numbers
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.questions import DOMAINS
from guardrail.demo.runner import Runner
from guardrail.guard import Guard, SamplingOptions
from guardrail.types import Array
from guardrail.vectors import TraitVectors

SEED = 900
CELL, STRONG, FRESH, MIXED, REPLIES, FACTS, STEERED = 128, 256, 2000, 200, 6, 400, 128
FPR = 0.01
NOUNS = ("advice", "review")
NEW_TOKENS = 96
SAMPLING = SamplingOptions(max_new_tokens=NEW_TOKENS, temperature=1.0, top_k=0, seed=SEED)
MIDDLE = 3
"""The layer of single-layer steering, fixed in advance: the middle of six."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Replies under one condition; `facts` is the share of stated facts that are right."""

    score: Estimate
    coherence: Estimate
    facts: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A trait's probe at its chosen layer, on last prompt tokens."""

    layer: int
    auroc: Estimate
    auroc_vs_other_traits: Estimate
    tpr_at_1pct_fpr: Estimate
    fires_on_other_traits: Mapping[str, Estimate]
    fpr_fresh: Estimate
    """On fresh prompts of the population that was calibrated on."""
    fpr_unseen_phrasings: Estimate


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Correlations with judged replies over mixed conditions; `within` is inside each system level."""

    r_overall: Estimate
    r_within: Estimate
    r_one_reply: Estimate
    oracle_overall: Estimate
    oracle_within: Estimate
    label_only: Estimate
    reliability_one: float
    """r between two single replies to the same prompt."""
    reliability_mean: float
    """The same for means of all replies (Spearman-Brown)."""


@dataclass(frozen=True, slots=True)
class Steered:
    """One way of steering a trait."""

    prompts: str
    operator: str
    cell: Cell


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that the model card shows."""

    conditions: Mapping[str, Mapping[str, Cell]]
    history: Mapping[str, Mapping[str, Estimate]]
    pressure: Mapping[str, Estimate]
    facts: Mapping[str, Estimate]
    coherence: Mapping[str, Estimate]
    detection: Mapping[str, Detection]
    monitoring: Mapping[str, Monitoring]
    steering: Mapping[str, Sequence[Steered]]

    def save(self, path: Path) -> None:
        """Writes JSON, with the machine and the versions that it was measured with."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": environment(), **asdict(self)}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Reads what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("environment")
        return TypeAdapter(cls).validate_python(content)


def environment() -> dict[str, str]:
    """Where numbers come from: commit, machine, versions."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def evaluate(runner: Runner, vectors: TraitVectors, calibration: Calibration) -> Evaluation:
    """All tables; about five minutes on two cores."""
    return Evaluation(
        conditions=conditions(runner),
        history={t: {str(k): _history(runner, t, k) for k in range(4)} for t in world.TRAITS},
        pressure={t: _pressure(runner, t) for t in world.TRAITS},
        facts={d: _facts(runner, d) for d in DOMAINS if d not in NOUNS},
        coherence={
            "unseen combinations": _coherence(runner, Condition(split="train", domains=NOUNS, nouns="test")),
            **{
                f"unseen phrasings, {d}": _coherence(runner, Condition(split="test", domains=(d,)))
                for d in DOMAINS
            },
        },
        detection=detection(runner, vectors, calibration),
        monitoring={t: monitoring(runner, vectors, t) for t in world.TRAITS},
        steering={t: steering(runner, t) for t in world.TRAITS},
    )


def conditions(runner: Runner) -> dict[str, dict[str, Cell]]:
    """Trait score and coherence for each trait and system level."""
    return {t: {level: _condition(runner, t, level) for level in world.LEVELS} for t in world.TRAITS}


def _condition(runner: Runner, trait: str, level: world.Level) -> Cell:
    drawn = material.at_level(SEED, CELL, "test", trait, level)
    return _cell(trait, _verdicts(runner, drawn))


def _history(runner: Runner, trait: str, turns: int) -> Estimate:
    condition = Condition(split="test", trait=trait, history=turns, history_z=0.97)
    drawn = material.under(SEED, CELL, condition)
    return intervals.mean([v.traits[trait] for v in _verdicts(runner, drawn)])


def _pressure(runner: Runner, trait: str) -> Estimate:
    drawn = material.under(SEED, CELL, Condition(split="test", trait=trait, push=trait))
    return intervals.mean([v.traits[trait] for v in _verdicts(runner, drawn)])


def _facts(runner: Runner, domain: str) -> Estimate:
    drawn = material.under(SEED, FACTS, Condition(split="test", domains=(domain,)))
    stated = [v.correct for v in _verdicts(runner, drawn) if v.correct is not None]
    return intervals.rate(stated)


def _coherence(runner: Runner, condition: Condition) -> Estimate:
    drawn = material.under(SEED + 1, 2 * CELL, condition)
    return intervals.mean([v.coherence for v in _verdicts(runner, drawn)])


def detection(runner: Runner, vectors: TraitVectors, calibration: Calibration) -> dict[str, Detection]:
    """What the probes tell apart, and what `{fpr: 0.01}` really fires on."""
    strong = {t: _states(runner, material.at_level(SEED, STRONG, "test", t, "strong")) for t in world.TRAITS}
    fresh = _states(runner, material.benign(SEED, FRESH, "train", "validation"))
    unseen = _states(runner, material.benign(SEED, FRESH, "test"))
    return {t: _detected(vectors, calibration, t, strong, fresh, unseen) for t in world.TRAITS}


def _detected(
    vectors: TraitVectors,
    calibration: Calibration,
    trait: str,
    strong: Mapping[str, Array],
    fresh: Array,
    unseen: Array,
) -> Detection:
    layer = vectors[trait].layer or 1
    threshold = calibration.probes[trait][layer].conformal(FPR)
    values = {name: projected(vectors, trait, states) for name, states in strong.items()}
    benign, others = projected(vectors, trait, unseen), [v for n, v in values.items() if n != trait]
    fires = {name: intervals.rate([bool(x) for x in v >= threshold]) for name, v in values.items()}
    return Detection(
        layer=layer,
        auroc=intervals.auroc(values[trait], benign),
        auroc_vs_other_traits=intervals.auroc(values[trait], np.concatenate(others)),
        tpr_at_1pct_fpr=fires.pop(trait),
        fires_on_other_traits=fires,
        fpr_fresh=intervals.rate([bool(x) for x in projected(vectors, trait, fresh) >= threshold]),
        fpr_unseen_phrasings=intervals.rate([bool(x) for x in benign >= threshold]),
    )


def projected(vectors: TraitVectors, trait: str, states: Array) -> Numbers:
    """[prompts]: projections at the trait's chosen layer."""
    vector = vectors[trait]
    layer = vector.layer or 1
    return (states[:, layer] @ vector.probe[layer] + vector.offset[layer]).astype(np.float64)


def monitoring(runner: Runner, vectors: TraitVectors, trait: str) -> Monitoring:
    """How well projections foretell the trait in the replies, beside what could be known at best."""
    drawn = material.mixed(SEED, MIXED, "test", trait)
    rounds = [_verdicts(runner, drawn, SEED + i) for i in range(REPLIES)]
    single = np.array([[v.traits[trait] for v in verdicts] for verdicts in rounds])
    scores = single.mean(axis=0)
    levels = [c.condition.level for c in drawn]
    oracle = np.array([c.propensity[trait] for c in drawn])
    label = np.array([world.LEVELS.index(level) for level in levels], np.float64)
    values = projected(vectors, trait, _states(runner, drawn))
    one = float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in combinations(single, 2)]))
    return Monitoring(
        r_overall=intervals.correlation(values, scores),
        r_within=intervals.within(levels, values, scores),
        r_one_reply=intervals.correlation(values, single[0]),
        oracle_overall=intervals.correlation(oracle, scores),
        oracle_within=intervals.within(levels, oracle, scores),
        label_only=intervals.correlation(label, scores),
        reliability_one=one,
        reliability_mean=REPLIES * one / (1 + (REPLIES - 1) * one),
    )


Operator = Mapping[str, object]
"""What stands under `steer:` in a policy file."""

CAPPED: Operator = {"operator": "cap", "at": {"percentile": 75}, "layers": "all"}
OPERATORS: Mapping[str, Mapping[str, Operator]] = {
    "neutral": {
        "add +1, one layer": {"operator": "add", "coefficient": 1.0, "layers": [MIDDLE], "amplify": True},
        "add +2, one layer": {"operator": "add", "coefficient": 2.0, "layers": [MIDDLE], "amplify": True},
        "add +3, one layer": {"operator": "add", "coefficient": 3.0, "layers": [MIDDLE], "amplify": True},
        "add +1, incremental": {
            "operator": "add",
            "coefficient": 1.0,
            "layers": "incremental",
            "amplify": True,
        },
        "cap at 75, all layers": CAPPED,
    },
    "strong": {
        "add -1, one layer": {"operator": "add", "coefficient": -1.0, "layers": [MIDDLE]},
        "add -1, incremental": {"operator": "add", "coefficient": -1.0, "layers": "incremental"},
        "ablate, all layers": {"operator": "ablate", "layers": "all"},
        "cap at 75, one layer": {**CAPPED, "layers": [MIDDLE]},
        "cap at 75, all layers": CAPPED,
        "cap at 25, all layers": {**CAPPED, "at": {"percentile": 25}},
    },
}


def steering(runner: Runner, trait: str) -> list[Steered]:
    """Trait, coherence and facts before and after steering by the guard, on neutral and on strong prompts."""
    rows = []
    levels: tuple[world.Level, ...] = ("neutral", "strong")
    for level in levels:
        drawn = material.at_level(SEED + 2, STEERED, "test", trait, level)
        rows.append(Steered(level, "none", _cell(trait, _verdicts(runner, drawn))))
        for label, operator in OPERATORS[level].items():
            rows.append(Steered(level, label, _cell(trait, _guarded(runner, drawn, trait, operator))))
    return rows


def _guarded(runner: Runner, drawn: Sequence[Conversation], trait: str, operator: Operator) -> list[Verdict]:
    """Verdicts on replies of a guard whose only policy always steers."""
    with Guard(runner.model, runner.tokenizer, always(trait, operator)) as guard:
        replies = guard.chat_many([c.messages for c in drawn], **SAMPLING)
    assert all(reply.steered_passes for reply in replies)
    pairs = zip(drawn, replies, strict=True)
    return [judge(c.question, r.text, ended=r.new_tokens < NEW_TOKENS) for c, r in pairs]


def always(trait: str, operator: Operator) -> dict[str, object]:
    """A policy file that steers every prompt."""
    policy = {"id": "always", "trait": trait, "layer": MIDDLE, "threshold": {"raw": -1e9}}
    files = {"version": 1, "vectors": "demo", "calibration": "demo"}
    return {**files, "policies": [{**policy, "action": {"steer": operator}}]}


def _cell(trait: str, verdicts: Sequence[Verdict]) -> Cell:
    facts = [v.correct for v in verdicts if v.correct is not None]
    return Cell(
        score=intervals.mean([v.traits[trait] for v in verdicts]),
        coherence=intervals.mean([v.coherence for v in verdicts]),
        facts=intervals.rate(facts) if facts else None,
    )


def _verdicts(runner: Runner, drawn: Sequence[Conversation], seed: int = SEED) -> list[Verdict]:
    replies = runner.replies([c.messages for c in drawn], seed=seed)
    return [judged(c.messages, r) for c, r in zip(drawn, replies, strict=True)]


def _states(runner: Runner, drawn: Sequence[Conversation]) -> Array:
    return runner.prompt_states([c.messages for c in drawn])
