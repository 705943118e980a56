"""Has a judge score every rollout, for each requested trait and for coherence. Resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.engines import Continuation
from guardrail.extract.journal import Journal, Recipe, Report, silent
from guardrail.extract.judges.opinions import Opinion, mean_mass, opinions
from guardrail.extract.prompts import RolloutPrompt
from guardrail.extract.rollouts import Rollouts
from guardrail.plugins.protocols import Judge, JudgeRequest
from guardrail.traits import ROLE
from guardrail.types import Array

FILE = "scores.jsonl"
UNSEEN = Opinion(None)
"""For empty replies, which the judge is not shown."""


class Judged:
    """Scores on disk, one row per rollout. None means that the judge refused; it never means 0."""

    def __init__(self, rollouts: Rollouts, metrics: Sequence[str], journal: Journal) -> None:
        self.rollouts, self.metrics, self.journal = rollouts, tuple(metrics), journal

    def scores(self, row: int) -> Mapping[str, float | None]:
        """The scores of one row by metric, read from disk."""
        return self.journal[row]["scores"]

    def means(self, metric: str) -> Array:
        """[prompts]: the mean score of each prompt's replies; NaN if none was judged."""
        sums, counts = np.zeros((2, len(self.rollouts.prompts)))
        for row in range(len(self.journal)):
            score = self.scores(row)[metric]
            if score is not None:
                prompt = self.rollouts.place(row)[0]
                sums[prompt] += score
                counts[prompt] += 1
        means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        return means.astype(np.float32)

    def numeric_mass(self, metric: str) -> float | None:
        """The mean probability of numbers among the judge's answers; None if it gives no probabilities."""
        return mean_mass(row.get("mass", {}).get(metric) for row in self.journal)


def judge_rollouts(
    rollouts: Rollouts,
    judge: Judge,
    rubrics: Mapping[str, str],
    folder: Path,
    report: Report = silent,
) -> Judged:
    """Score the rollouts that `folder` lacks. rubrics: one per metric (a trait's name or COHERENCE).

    The judge does not see empty replies; their scores are None. Raises JudgeError if the judge cannot be
    reached; judged batches stay on disk.
    """
    recipe = _recipe(rollouts, judge, rubrics)
    journal = Journal(folder / FILE, recipe, len(rollouts), rollouts.journal.batch)
    stage = f"{recipe['pool']}: judging"
    journal.complete(stage, lambda rows: _scored(rollouts, judge, rubrics, rows), report)
    return Judged(rollouts, tuple(rubrics), journal)


def _recipe(rollouts: Rollouts, judge: Judge, rubrics: Mapping[str, str]) -> Recipe:
    return {**rollouts.journal.recipe, "judge": judge.name, "rubrics": dict(rubrics)}


def _scored(
    rollouts: Rollouts, judge: Judge, rubrics: Mapping[str, str], rows: Sequence[int]
) -> list[dict[str, Any]]:
    replies = {row: rollouts.reply(row) for row in rows}
    asked = [(row, metric) for row in rows for metric in rubrics if replies[row].text.strip()]
    requests = [
        _request(rollouts.prompts[rollouts.place(row)[0]], replies[row], metric, rubrics[metric])
        for row, metric in asked
    ]
    found = dict(zip(asked, opinions(judge, requests), strict=True))
    return [_row(row, {metric: found.get((row, metric), UNSEEN) for metric in rubrics}) for row in rows]


def _row(row: int, found: Mapping[str, Opinion]) -> dict[str, Any]:
    mass = {metric: one.mass for metric, one in found.items() if one.mass is not None}
    return {"row": row, "scores": {m: one.score for m, one in found.items()}} | (
        {"mass": mass} if mass else {}
    )


def _request(prompt: RolloutPrompt, reply: Continuation, metric: str, rubric: str) -> JudgeRequest:
    return JudgeRequest(
        metric=metric,
        rubric=rubric.replace(ROLE, prompt.role) if prompt.role else rubric,
        question=prompt.asked,
        answer=reply.text,
        ended=reply.ended,
    )
