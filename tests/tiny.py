"""Engines, plans and guards around tiny random models, for the tests of the model side."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from guardrail import Guard
from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.engines import Evaluator
from guardrail.engines.transformers.caches import CACHES
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.identity import Identity
from guardrail.engines.transformers.nnsight import Traced
from guardrail.policy.plan import Plan
from guardrail.testing import hand_made_plan, tiny_model, tiny_tokenizer
from guardrail.types import Decision, Operator, Probe, Steering
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

TOKENIZER = tiny_tokenizer()
EXECUTORS = (Traced, Hooked)
"""What engines look into prefills and decoding with; a fixture puts others in its place."""
CACHE = next(name for name in CACHES if name in {made.name for made in fields(CausalLMOutputWithPast)})
"""What this version of transformers calls a key-value cache."""
LAYERS, WIDTH = 4, 32
TEXTS = (
    "hello world",
    "abc defghi jkl",
    "what is this?",
    "z",
    "one more prompt",
    "Q",
    "a b c d e f",
    "end of it",
)


@dataclass
class Fixed(Evaluator):
    """Gives every row the decision that the test chose, and remembers what was read."""

    by_plan = False
    actions: Sequence[str] = ("allow",)
    steering: tuple[Steering, ...] = ()
    readings: dict[int, list[float]] = field(default_factory=dict)
    after: dict[int, list[float]] = field(default_factory=dict)

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        assert row not in self.readings, "decided twice"
        self.readings[row] = list(readings)
        action = self.actions[row % len(self.actions)]
        return Decision(
            status="evaluated", action=action, steering=self.steering if action == "steer" else ()
        )

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        self.after[row] = list(readings)
        return decision


def random_vector(seed: int = 0, width: int = WIDTH, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=width) * scale).astype(np.float32)


def steering(
    operator: Operator, layers: Sequence[int], seed: int = 1, limit: float = 0.0, scale: float = 3.0
) -> Steering:
    direction = random_vector(seed, scale=scale)
    if operator != "add":
        direction = (direction / np.linalg.norm(direction)).astype(np.float32)
    return Steering(
        policy="test",
        trait="evil",
        operator=operator,
        layers=tuple(layers),
        directions=(direction,) * len(layers),
        limits=(limit,) * len(layers) if operator == "cap" else (),
    )


def plan(read: Sequence[int] = (3,), steer: Steering | None = None) -> Plan:
    """A plan that reads one random probe at each of these layers."""
    base = hand_made_plan(layer=read[0] if read else 1)
    rule = base.rules[0]
    conditions = tuple(replace(rule.conditions[0], layer=layer, reading=i) for i, layer in enumerate(read))
    probes = tuple(Probe(trait="evil", layer=layer, weights=random_vector(layer)) for layer in read)
    return replace(base, probes=probes, rules=(replace(rule, conditions=conditions, steering=steer),))


@contextmanager
def engine(architecture: str = "llama", **overrides: Any) -> Iterator[tuple[TransformersEngine, Any]]:
    """An engine and a copy of its model that was never wrapped."""
    model = tiny_model(architecture, **overrides)
    bare = copy.deepcopy(model)
    made = TransformersEngine(model, TOKENIZER, None, None, *EXECUTORS)
    try:
        yield made, bare
    finally:
        made.close()


def batch(count: int = 4, side: str = "left") -> dict[str, torch.Tensor]:
    texts = [TEXTS[i % len(TEXTS)] for i in range(count)]
    return dict(TOKENIZER(texts, return_tensors="pt", padding=True, padding_side=side))


def generate(made: TransformersEngine, active: Plan, evaluator: Evaluator, **kwargs: Any) -> Any:
    return made.generate(
        active, evaluator, lambda event: None, {"max_new_tokens": 6, "pad_token_id": 0, **kwargs}
    )


def write_vectors(
    folder: Path,
    model: Any,
    traits: Sequence[str] = ("evil", "sycophancy"),
    tokenizer: Any = TOKENIZER,
    template: str = TOKENIZER.chat_template,
) -> TraitVectors:
    """vectors.safetensors and calibration.json for a tiny model, in a folder."""
    mark = fingerprint(model, tokenizer, template, {})
    rng = np.random.default_rng(7)
    rows = (mark.layers + 1, mark.d_model)
    made = {name: TraitVector.from_difference(name, rng.normal(size=rows), layer=3) for name in traits}
    vectors = TraitVectors(made, Provenance(fingerprint=mark, method="random", created="2026-01-01"))
    vectors.save(folder / "vectors.safetensors")
    benign = Benign.of(rng.normal(size=500))
    tables = {name: dict.fromkeys(range(1, mark.layers + 1), benign) for name in traits}
    Calibration(
        fingerprint=mark,
        vectors_sha256=vectors.sha256,
        population="none",
        created="2026-01-01",
        probes=tables,
        steering=tables,
    ).save(folder / "calibration.json")
    return vectors


FIRES, NEVER = -1e6, 1e6
"""Thresholds that every prompt and that no prompt reaches."""


def policy(action: object = "block", threshold: object = FIRES, **keys: object) -> dict[str, object]:
    return {"id": "test", "trait": "evil", "threshold": threshold, "action": action, **keys}


def policies(folder: Path, *rules: Mapping[str, object], **keys: object) -> dict[str, object]:
    return {
        "version": 1,
        "vectors": str(folder / "vectors.safetensors"),
        "calibration": str(folder / "calibration.json"),
        "policies": list(rules),
        **keys,
    }


def plain_policies(folder: Path) -> dict[str, object]:
    """One policy that blocks everything."""
    return policies(folder, policy())


def rewatch(made: Guard) -> None:
    """Let a guarded model pass for the one that was loaded, with what the test has put on it."""
    assert isinstance(made.engine, TransformersEngine)
    made.engine.identity = Identity(made.engine.local)


@contextmanager
def guard(
    folder: Path,
    *rules: Mapping[str, object],
    model: Any = None,
    options: Mapping[str, Any] | None = None,
    **keys: object,
) -> Iterator[Guard]:
    """A guard around a tiny Llama with these policies."""
    model = tiny_model() if model is None else model
    write_vectors(folder, model)
    with Guard(model, TOKENIZER, policies(folder, *rules, **keys), **(options or {})) as made:
        yield made
