"""The rules that fire on the device are those that `decide` says fire."""

import math
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import plan, steering

from guardrail.engines.transformers.firing import Firing
from guardrail.policy.decide import decide
from guardrail.types import Facts

READ, PLACES = (1, 2, 3), {0: 2, 1: 0, 2: 1}
SCORES = st.sampled_from([-math.inf, -1.0, 0.1, 0.5, 1.0, 1.0 + 1e-7, 3.0, math.inf, math.nan])


@st.composite
def rules(draw):
    """A few rules that steer, with one to three conditions each; the first error lets prompts pass."""
    base = plan(READ, steering("add", (3,))).rules[0]
    made = []
    for i in range(draw(st.integers(1, 3))):
        conditions = tuple(
            replace(
                base.conditions[0],
                reading=draw(st.integers(0, 2)),
                threshold=draw(st.sampled_from([0.1, 0.5, 1.0, 1.0 + 1e-8])),
                fires=draw(st.sampled_from(["above", "below"])),
            )
            for _ in range(draw(st.integers(1, 3)))
        )
        made.append(
            replace(
                base,
                id=f"r{i}",
                action="steer",
                conditions=conditions,
                require_all=draw(st.booleans()),
                mode=draw(st.sampled_from(["enforce", "enforce", "shadow"])),
                steering=base.steering.renamed(f"r{i}"),
                settings=base.settings.model_copy(update={"on_error": "allow"}),
            )
        )
    made[0] = replace(made[0], mode="enforce")
    return tuple(made)


@given(rules(), st.lists(st.tuples(SCORES, SCORES, SCORES), min_size=1, max_size=4))
def test_the_rules_that_fire_are_those_that_decide_steers_by(made, rows):
    active = replace(plan(READ), rules=made)
    scores = torch.tensor(rows, dtype=torch.float32)
    columns = scores[:, [1, 2, 0]]
    firing = Firing(active, PLACES, torch.device("cpu"))
    fired = firing(columns)
    for row, found in zip(scores.tolist(), fired.tolist(), strict=True):
        steered = {change.policy for change in decide(active, row, Facts()).steering}
        assert {rule.id for rule, fires in zip(firing.rules, found, strict=True) if fires} == steered


def test_a_score_at_its_threshold_fires_in_the_precision_of_the_host():
    rule = replace(plan((1,), steering("add", (3,))).rules[0], action="steer")
    score = torch.tensor([[0.1]], dtype=torch.float32)
    for threshold, fires in ((float(score), True), (0.1, True), (math.nextafter(float(score), 1), False)):
        condition = replace(rule.conditions[0], threshold=threshold)
        active = replace(plan((1,)), rules=(replace(rule, conditions=(condition,)),))
        assert bool(Firing(active, {0: 0}, torch.device("cpu"))(score)) is fires, threshold
