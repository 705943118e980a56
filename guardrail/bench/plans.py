"""Plans with a known verdict, because every score or no score reaches their thresholds.

`forced_*` use the user's compiled policies and keep what costs time (probes, layers, steering, following the
reply), but replace thresholds, modes and conditions on requests. The other plans have random probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from guardrail.errors import ConfigError
from guardrail.policy.decide import decide, recheck
from guardrail.policy.decide_reply import Observed, Watch, decide_reply, watch
from guardrail.policy.model import Monitor, When
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.types import Array, Decision, Facts, Probe, Steering

NEVER, ALWAYS = 1e9, -1e9
STRENGTH = 0.1
PATIENCE_MS = 3_600_000


class PlanEvaluator:
    """Decides by the plan alone, like the guard for a request without tags."""

    by_plan, cancelled = True, False

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def begun(self, waited_s: float) -> None:
        """Nobody waits."""

    def facts(self, row: int) -> Facts:
        """Nothing is known of a row."""
        return Facts()

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        """The decision on one row."""
        return decide(self.plan, readings, Facts())

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        """The decision after steering."""
        return recheck(self.plan, decision, readings, layer)

    def watch(self, row: int) -> Watch:
        """What to follow of the reply."""
        return watch(self.plan, Facts())

    def respond(self, row: int, observed: Observed) -> Decision:
        """The decision on the reply."""
        return decide_reply(self.plan, observed, Facts())


# --- the user's policies with a known verdict ---------------------------------------------------------


def forced_allow(plan: Plan) -> Plan:
    """A plan in which no policy fires. Raises ConfigError if no policy reads a layer."""
    rules = _linear(plan, NEVER)
    if not rules and not plan.reply_rules:
        raise ConfigError("no policy reads a layer of the model, so there is nothing to measure")
    return _with(plan, rules)


def forced_block(plan: Plan) -> Plan:
    """A plan in which every policy blocks: the forward pass ends at the last layer read, without a ticket."""
    rules = (replace(rule, action="block", config=None, steering=None) for rule in _of_prompts(plan, ALWAYS))
    return _with(plan, tuple(rules))


def forced_steer(plan: Plan) -> tuple[Plan, str]:
    """(Plan, note): only the first steering policy fires. Without one, a made-up vector is added."""
    rules = list(_of_prompts(plan, NEVER))
    i = next((i for i, rule in enumerate(rules) if rule.steering), None)
    note = "" if i is not None else f"no policy steers: a made-up vector at layer {plan.layers[-1]}"
    i = i or 0
    change = rules[i].steering or made_up_steering(plan.probes[0].weights.size, plan.layers[-1:])
    rules[i] = replace(_raised(rules[i], ALWAYS), action="steer", steering=change, recheck=None)
    return _with(plan, tuple(rules)), note


def _with(plan: Plan, rules: tuple[Rule, ...]) -> Plan:
    """The plan with these rules. Reply policies follow replies, but none fires."""
    return replace(plan, rules=rules, reply_rules=tuple(_raised(rule, NEVER) for rule in plan.reply_rules))


def _of_prompts(plan: Plan, threshold: float) -> tuple[Rule, ...]:
    rules = _linear(plan, threshold)
    if not rules:
        raise ConfigError("no policy reads the prompt, so nothing can be blocked or steered there")
    return rules


def _linear(plan: Plan, threshold: float) -> tuple[Rule, ...]:
    """The rules that read activations of the prompt, enforced on every request."""
    return tuple(_raised(rule, threshold) for rule in plan.rules if any(_reads(c) for c in rule.conditions))


def _raised(rule: Rule, threshold: float) -> Rule:
    conditions = tuple(
        replace(c, threshold=threshold, raw=threshold, fires="above") for c in rule.conditions if _reads(c)
    )
    patient = rule.settings.model_copy(update={"timeout_ms": PATIENCE_MS, "mode": "enforce"})
    return replace(
        rule, conditions=conditions, mode="enforce", when=When(), share=1.0, settings=patient, message=None
    )


def _reads(condition: CompiledCondition) -> bool:
    return condition.reading is not None


# --- made-up policies ---------------------------------------------------------------------------------


def allowing(d_model: int, layers: Sequence[int], policies: int) -> Plan:
    """Policies spread over the layers, none of which fires."""
    return _plan(d_model, layers, policies, NEVER, None)


def following(d_model: int, layers: Sequence[int], policies: int, every: int = 1) -> Plan:
    """Like `allowing`, with one more policy that reads every generated token at the last of the layers.

    It checks the verdict every `every` tokens, and never fires.
    """
    plan = allowing(d_model, layers, policies)
    probe = Probe(trait="reply", layer=layers[-1], weights=_unit(d_model, 2000))
    rule = replace(_rule(0, probe, NEVER, "block", None), id="reply", monitor=Monitor(every=every))
    return replace(plan, reply_rules=(rule,), reply_probes=(probe,))


def blocking(d_model: int, layers: Sequence[int], policies: int) -> Plan:
    """Like `allowing`, but all policies fire."""
    return _plan(d_model, layers, policies, ALWAYS, None)


def steering(d_model: int, layers: Sequence[int], policies: int, steered: Sequence[int]) -> Plan:
    """The first policy fires and adds a vector at the steered layers; the others do not."""
    return _plan(d_model, layers, policies, NEVER, made_up_steering(d_model, steered))


def steering_alone(d_model: int, layers: Sequence[int], policies: int, steered: Sequence[int]) -> Plan:
    """Policies that would add a vector at the steered layers. None fires, so nothing waits for scores."""
    base, change = allowing(d_model, layers, policies), made_up_steering(d_model, steered)
    rules = (replace(rule, action="steer", steering=change.renamed(rule.id)) for rule in base.rules)
    return replace(base, rules=tuple(rules))


def watching(d_model: int, layers: Sequence[int], policies: int) -> Plan:
    """Like `allowing`, but in shadow mode, so nothing depends on the scores."""
    base = allowing(d_model, layers, policies)
    return replace(base, rules=tuple(replace(rule, mode="shadow") for rule in base.rules))


def made_up_steering(d_model: int, layers: Sequence[int]) -> Steering:
    """A small vector at each of these layers."""
    directions = tuple(STRENGTH * _unit(d_model, 1000 + layer) for layer in layers)
    return Steering(policy="p0", trait="t0", operator="add", layers=tuple(layers), directions=directions)


def _plan(
    d_model: int, layers: Sequence[int], policies: int, threshold: float, change: Steering | None
) -> Plan:
    # the first policy reads the last layer, so that a single policy reads as deep as many
    where = [layers[-1 - i % len(layers)] for i in range(policies)]
    probes = tuple(
        Probe(trait=f"t{i}", layer=layer, weights=_unit(d_model, i)) for i, layer in enumerate(where)
    )
    rules = [_rule(i, probe, threshold, "block", None) for i, probe in enumerate(probes)]
    if change is not None:
        rules[0] = _rule(0, probes[0], ALWAYS, "steer", change)
    return Plan(probes=probes, rules=tuple(rules))


def _rule(i: int, probe: Probe, threshold: float, action: str, change: Steering | None) -> Rule:
    condition = CompiledCondition(
        trait=probe.trait, layer=probe.layer, reading=i, threshold=threshold, raw=threshold
    )
    return Rule(id=f"p{i}", conditions=(condition,), action=action, steering=change)


def _unit(d_model: int, seed: int) -> Array:
    values = np.random.default_rng(seed).normal(size=d_model)
    return (values / np.linalg.norm(values)).astype(np.float32)
