"""Tests a model when it is loaded: does it read the same in a batch as alone?

What the manager hands to a model (packed prompts, a paged cache) is taken in by each architecture in its own
code. Two short prompts in one pass have to give the readings that each gives by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from guardrail.engines import Emit, Evaluator, Prompt
from guardrail.engines.transformers.self_test import COARSE, TOLERANCE
from guardrail.errors import ModelError, outline
from guardrail.policy.decide_reply import Observed, Watch
from guardrail.policy.model import Defaults
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.types import Decision, Facts, Probe

Check = Callable[[Sequence[Prompt], Plan, Evaluator, Emit], None]
PROBES = 4
"""Random directions at each layer."""


class Kept:
    """An evaluator that allows everything, and keeps what was read."""

    by_plan, cancelled = True, False

    def __init__(self) -> None:
        self.readings: dict[int, list[float]] = {}

    def begun(self, waited_s: float) -> None:
        """Nobody waits."""

    def facts(self, row: int) -> Facts:
        """Nothing is known of a row."""
        return Facts()

    def decide(self, row: int, readings: Sequence[float]) -> Decision:
        """Allow."""
        self.readings[row] = list(readings)
        return Decision(status="evaluated", action="allow")

    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision:
        """The same."""
        return decision

    def watch(self, row: int) -> Watch:
        """Nothing."""
        return Watch(())

    def respond(self, row: int, observed: Observed) -> Decision:
        """Nothing was asked."""
        return Decision(status="not_evaluated", stage="response")


def run(
    name: str,
    batched: Check,
    alone: Check,
    prompts: Sequence[Prompt],
    layers: int,
    width: int,
    dtype: torch.dtype,
) -> None:
    """Raises ModelError for a model that is read differently in a batch."""
    plan = _plan(layers, width)
    expected = [_read(alone, [prompt], plan)[0] for prompt in prompts]
    try:
        found = _read(batched, prompts, plan)
    except Exception as error:
        raise ModelError(f"{name} cannot be batched continuously: {outline(error)}") from error
    for one, other in zip(found, expected, strict=True):
        # rounding may add up in some layers
        apart = np.linalg.norm(one - other, axis=1) / np.linalg.norm(other, axis=1)
        if not np.median(apart) <= TOLERANCE.get(dtype, COARSE):
            raise ModelError(f"{name} cannot be batched continuously: a prompt reads differently in a batch")


def _read(check: Check, prompts: Sequence[Prompt], plan: Plan) -> list[np.ndarray]:
    """[layers, probes] of each prompt."""
    kept = Kept()
    check(prompts, plan, kept, lambda event: None)
    return [np.array(kept.readings[row]).reshape(-1, PROBES) for row in range(len(prompts))]


def _plan(layers: int, width: int) -> Plan:
    """Reads random directions at every layer but the last, and decides nothing."""
    random = np.random.default_rng(0)
    read = [layer for layer in range(1, max(layers, 2)) for _ in range(PROBES)]
    probes = tuple(
        Probe(trait="trial", layer=layer, weights=random.normal(size=width).astype(np.float32))
        for layer in read
    )
    conditions = tuple(
        CompiledCondition(trait="trial", layer=layer, reading=i, threshold=np.inf, raw=np.inf)
        for i, layer in enumerate(read)
    )
    settings = Defaults(mode="shadow")
    rule = Rule(id="trial", conditions=conditions, action="block", mode="shadow", settings=settings)
    return Plan(probes=probes, rules=(rule,))
