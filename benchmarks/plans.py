"""Plans whose verdict is known beforehand: thresholds that every score or no score reaches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.evaluate import evaluate, recheck
from guardrail.plan import CompiledCondition, Plan, Rule
from guardrail.policy import Defaults, When
from guardrail.types import Array, Decision, Facts, Probe, Steering

NEVER, ALWAYS = 1e9, -1e9
STRENGTH = 0.1


class PlanEvaluator:
    """Decides by the plan alone, as the guard does for a request without tags."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        """The decision on one row."""
        return evaluate(self.plan, readings, Facts())

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        """The decision after steering."""
        return recheck(self.plan, decision, readings, layer)


def allowing(d_model: int, layers: Sequence[int], policies: int) -> Plan:
    """Policies, spread over layers, of which none fires."""
    return _plan(d_model, layers, policies, NEVER, "block", None)


def blocking(d_model: int, layers: Sequence[int], policies: int) -> Plan:
    """As `allowing`, but all of them fire."""
    return _plan(d_model, layers, policies, ALWAYS, "block", None)


def steering(d_model: int, layers: Sequence[int], policies: int, steered: Sequence[int]) -> Plan:
    """The first policy fires and adds a vector at the steered layers; the others do not."""
    directions = tuple(STRENGTH * _unit(d_model, 1000 + layer) for layer in steered)
    change = Steering(policy="p0", trait="t0", operator="add", layers=tuple(steered), directions=directions)
    return _plan(d_model, layers, policies, NEVER, "block", change)


def _plan(
    d_model: int, layers: Sequence[int], policies: int, threshold: float, action: str, change: Steering | None
) -> Plan:
    probes = tuple(
        Probe(trait=f"t{i}", layer=layers[i % len(layers)], weights=_unit(d_model, i))
        for i in range(policies)
    )
    rules = [_rule(i, probe, threshold, action, None) for i, probe in enumerate(probes)]
    if change is not None:
        rules[0] = _rule(0, probes[0], ALWAYS, "steer", change)
    return Plan(probes=probes, rules=tuple(rules))


def _rule(i: int, probe: Probe, threshold: float, action: str, change: Steering | None) -> Rule:
    return Rule(
        id=f"p{i}",
        conditions=(
            CompiledCondition(
                trait=probe.trait, layer=probe.layer, reading=i, threshold=threshold, raw=threshold
            ),
        ),
        require_all=True,
        action=action,
        config=None,
        steering=change,
        recheck=None,
        otherwise="block",
        mode="enforce",
        when=When(),
        share=1.0,
        message=None,
        settings=Defaults(),
    )


def _unit(d_model: int, seed: int) -> Array:
    values = np.random.default_rng(seed).normal(size=d_model)
    return (values / np.linalg.norm(values)).astype(np.float32)
