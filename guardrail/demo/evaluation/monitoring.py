# pyright: basic
"""How well projections foretell a trait in later replies, beside what could be known at best."""

from itertools import combinations

import numpy as np

from guardrail.demo import intervals, material, world
from guardrail.demo.evaluation.behaviour import SEED, verdicts
from guardrail.demo.evaluation.detection import projected
from guardrail.demo.evaluation.results import Monitoring
from guardrail.demo.runner import Runner
from guardrail.vectors import TraitVectors

MIXED, REPLIES = 200, 8


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
