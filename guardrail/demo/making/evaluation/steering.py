# pyright: basic
"""Trait, coherence and facts before and after steering by the guard, on neutral and on strong prompts."""

from collections.abc import Mapping, Sequence

from guardrail.demo import material
from guardrail.demo.generator import Conversation
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.making.evaluation.behaviour import SEED, cell, verdicts
from guardrail.demo.making.evaluation.results import Steered
from guardrail.demo.making.runner import Runner
from guardrail.guard import Guard
from guardrail.pipeline.options import SamplingOptions

STEERED, NEW_TOKENS = 128, 96
MIDDLE = 4
"""The layer of single-layer steering, fixed in advance: the middle of eight."""
Operator = Mapping[str, object]
"""What stands under `steer:` in a policy file."""


def _add(coefficient: float, layers: object) -> Operator:
    upwards = {"amplify": True} if coefficient > 0 else {}
    return {"operator": "add", "coefficient": coefficient, "layers": layers, **upwards}


def _cap(percentile: int, layers: object = "all") -> Operator:
    return {"operator": "cap", "at": {"percentile": percentile}, "layers": layers}


CAPPED = _cap(75)
UP: Mapping[str, Operator] = {
    **{f"add +{c}, one layer": _add(c, [MIDDLE]) for c in (1.0, 2.0, 3.0, 4.0)},
    **{f"add +{c}, incremental": _add(c, "incremental") for c in (1.0, 1.5, 2.0)},
}
DOWN: Mapping[str, Operator] = {
    "add -1, one layer": _add(-1.0, [MIDDLE]),
    "add -1, incremental": _add(-1.0, "incremental"),
    "ablate, all layers": {"operator": "ablate", "layers": "all"},
    "cap at 75, one layer": _cap(75, [MIDDLE]),
    "cap at 75, all layers": CAPPED,
    "cap at 50, all layers": _cap(50),
    "cap at 25, all layers": _cap(25),
}


def steering(runner: Runner, trait: str, vectors: str, calibration: str) -> list[Steered]:
    """Upwards at temperature .7 on neutral prompts, downwards at 1 on strong ones, the cap on both."""
    neutral = material.at_level(SEED + 2, STEERED, "test", trait, "neutral")
    strong = material.at_level(SEED + 2, STEERED, "test", trait, "strong")
    files = (vectors, calibration)
    return [
        *_rows(runner, neutral, trait, "neutral, T = .7", UP, 0.7, files),
        *_rows(runner, neutral, trait, "neutral", {"cap at 75, all layers": CAPPED}, 1.0, files),
        *_rows(runner, strong, trait, "strong", DOWN, 1.0, files),
    ]


def always(
    trait: str, operator: Operator, vectors: str = "demo", calibration: str = "demo"
) -> dict[str, object]:
    """A policy file that steers every prompt."""
    policy = {"id": "always", "trait": trait, "layer": MIDDLE, "threshold": {"raw": -1e9}}
    files = {"version": 1, "vectors": vectors, "calibration": calibration}
    return {**files, "policies": [{**policy, "action": {"steer": operator}}]}


def _rows(
    runner: Runner,
    drawn: Sequence[Conversation],
    trait: str,
    prompts: str,
    operators: Mapping[str, Operator],
    temperature: float,
    files: tuple[str, str],
) -> list[Steered]:
    before = cell(trait, verdicts(runner, drawn, temperature=temperature))
    steered = {
        label: cell(trait, _guarded(runner, drawn, always(trait, operator, *files), temperature))
        for label, operator in operators.items()
    }
    return [Steered(prompts, label, one) for label, one in {"none": before, **steered}.items()]


def _guarded(
    runner: Runner, drawn: Sequence[Conversation], policies: Mapping[str, object], temperature: float
) -> list[Verdict]:
    """Verdicts on replies of a guard whose only policy always steers."""
    sampling = SamplingOptions(max_new_tokens=NEW_TOKENS, temperature=temperature, top_k=0, seed=SEED)
    with Guard(runner.model, runner.tokenizer, policies) as guard:
        replies = guard.chat_many([c.messages for c in drawn], **sampling)
    assert all(reply.steered_passes for reply in replies)
    pairs = zip(drawn, replies, strict=True)
    return [judge(c.question, r.text, ended=r.new_tokens < NEW_TOKENS) for c, r in pairs]
