# pyright: basic
"""Measures how well projections predict a trait in later replies, next to the best possible prediction."""

import numpy as np

from guardrail.demo import material, world
from guardrail.demo.making.evaluation.behaviour import SEED, verdicts
from guardrail.demo.making.evaluation.detection import projected
from guardrail.demo.making.evaluation.results import Monitoring
from guardrail.demo.making.runner import Runner
from guardrail.statistics import correlation
from guardrail.statistics.intervals import Estimate, Numbers
from guardrail.vectors.values import TraitVectors

MIXED, REPLIES = 200, 8
NOTHING = Estimate(0.0, 0.0, 0.0)
"""The correlation of a constant prediction."""


def monitoring(runner: Runner, vectors: TraitVectors, pole: str) -> Monitoring:
    """Over prompts of all levels with pressure and earlier turns; correlated with the mean of 8 replies."""
    drawn = material.mixed(SEED, MIXED, "test", pole)
    rounds = [verdicts(runner, drawn, SEED + i) for i in range(REPLIES)]
    single = np.array([[v.traits[pole] for v in one] for one in rounds])
    scores = single.mean(axis=0)
    levels = [c.condition.level for c in drawn]
    oracle = np.array([c.propensity[pole] for c in drawn])
    label = np.array([world.LEVELS.index(level) for level in levels], np.float64)
    values = projected(vectors, pole, runner.states(drawn))
    reliable = correlation.reliability(levels, single.T.tolist())

    def overall(known: Numbers, shown: Numbers = scores) -> Estimate:
        return correlation.overall(levels, known, shown) or NOTHING

    return Monitoring(
        r_overall=overall(values),
        r_within=correlation.within(levels, values, scores) or NOTHING,
        r_one_reply=overall(values, single[0]),
        oracle_overall=overall(oracle),
        oracle_within=correlation.within(levels, oracle, scores) or NOTHING,
        label_only=overall(label),
        reliability_one=reliable.one if reliable else 0.0,
        reliability_mean=reliable.mean if reliable else 0.0,
    )
