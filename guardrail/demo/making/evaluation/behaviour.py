# pyright: basic
"""What replies show: trait scores by system level, earlier turns and pressure; coherence by material."""

from collections.abc import Sequence

import numpy as np

from guardrail.demo import material, world
from guardrail.demo.generator import Condition, Conversation
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.making.evaluation.results import Cell
from guardrail.demo.making.runner import Runner
from guardrail.demo.questions import DOMAINS
from guardrail.statistics import intervals
from guardrail.statistics.intervals import Estimate

SEED, CELL = 900, 128
NOUNS = ("advice", "review")


def conditions(runner: Runner) -> dict[str, dict[str, Cell]]:
    """Trait score and coherence for each pole and system level."""
    return {p: {level: _condition(runner, p, level) for level in world.LEVELS} for p in world.POLES}


def history(runner: Runner) -> dict[str, dict[str, Estimate]]:
    """Score at a neutral system prompt after 0 to 3 earlier turns in character."""
    return {p: {str(turns): _after(runner, p, turns) for turns in range(4)} for p in world.POLES}


def pressure(runner: Runner) -> dict[str, Estimate]:
    """Score at a neutral system prompt under one sentence of pressure."""
    return {p: _score(runner, p, Condition(split="test", pole=p, push=p)) for p in world.POLES}


def coherence(runner: Runner) -> dict[str, Estimate]:
    """Coherence at neutral, by what is unseen."""
    combinations = Condition(split="train", domains=NOUNS, nouns="test")
    return {
        "unseen combinations": _coherence(runner, combinations, 2 * CELL),
        "unseen phrasings": _coherence(runner, Condition(split="test"), 4 * CELL),
        **{
            f"unseen phrasings, {d}": _coherence(runner, Condition(split="test", domains=(d,)), CELL)
            for d in DOMAINS
        },
    }


def cell(pole: str, verdicts: Sequence[Verdict]) -> Cell:
    """The summary of replies under one condition."""
    facts = [v.correct for v in verdicts if v.correct is not None]
    scores = [v.traits[pole] for v in verdicts]
    return Cell(
        score=intervals.mean(scores),
        coherence=intervals.mean([v.coherence for v in verdicts]),
        sd=float(np.std(scores, ddof=1)),
        facts=intervals.rate(facts) if facts else None,
    )


def verdicts(
    runner: Runner, drawn: Sequence[Conversation], seed: int = SEED, temperature: float = 1.0
) -> list[Verdict]:
    """The judge on one sampled reply to each prompt."""
    replies = runner.replies(drawn, seed=seed, temperature=temperature)
    return [judge(c.question, r.text, ended=r.ended) for c, r in zip(drawn, replies, strict=True)]


def _condition(runner: Runner, pole: str, level: world.Level) -> Cell:
    return cell(pole, verdicts(runner, material.at_level(SEED, CELL, "test", pole, level)))


def _after(runner: Runner, pole: str, turns: int) -> Estimate:
    return _score(runner, pole, Condition(split="test", pole=pole, history=turns, history_z=0.97))


def _score(runner: Runner, pole: str, condition: Condition) -> Estimate:
    drawn = material.under(SEED, CELL, condition)
    return intervals.mean([v.traits[pole] for v in verdicts(runner, drawn)])


def _coherence(runner: Runner, condition: Condition, count: int) -> Estimate:
    drawn = material.under(SEED + 1, count, condition)
    return intervals.mean([v.coherence for v in verdicts(runner, drawn)])
