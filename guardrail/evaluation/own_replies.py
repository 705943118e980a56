"""Lets the user's own model reply to the labelled prompts, to compare projections with later expression.

Each prompt gets several replies, which a judge scores for every trait. Work is kept and resumed like that of
an extraction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from guardrail.evaluation.material import Example, Material
from guardrail.extract.journal import Report, rows_in, silent
from guardrail.extract.judgements import FILE as JUDGEMENTS
from guardrail.extract.judgements import Judged, judge_rollouts
from guardrail.extract.prompts import RolloutPrompt, mixed_prompts
from guardrail.extract.rollouts import FILE as ROLLOUTS
from guardrail.extract.rollouts import RolloutSettings, roll_out
from guardrail.extract.subject import Subject
from guardrail.extract.workload import Workload
from guardrail.plugins.protocols import Judge
from guardrail.traits import TraitDefinition

POOL = "own replies"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnReplies:
    """The model that replies, the judge, the definitions whose rubrics it gets, and where work is kept."""

    subject: Subject
    judge: Judge
    definitions: Sequence[TraitDefinition]
    settings: RolloutSettings
    folder: Path

    def workload(self, material: Material) -> Workload:
        """What remains to be done."""
        total = len(material.labelled) * self.settings.samples
        return Workload(
            replies=total - rows_in(self.folder / ROLLOUTS),
            max_new_tokens=self.settings.max_new_tokens,
            batch=self.settings.batch,
            judged=len(self.definitions) * (total - rows_in(self.folder / JUDGEMENTS)),
        )

    def expressed(self, material: Material, report: Report = silent) -> Material:
        """The material with the judged expression of the replies to its labelled prompts.

        Raises JudgeError if the judge cannot be reached, PromptError for prompts that leave no room to reply.
        """
        prompts = mixed_prompts([example.messages for example in material.labelled])
        judged = self._judged(prompts, report)
        found = {
            id(example): replace(
                example, expression=_scores(judged, i), condition=example.condition or _condition(example)
            )
            for i, example in enumerate(material.labelled)
        }

        def put(part: Sequence[Example]) -> tuple[Example, ...]:
            return tuple(found.get(id(example), example) for example in part)

        labelled = put(material.labelled)
        monitored = {
            one.name: tuple(e for e in labelled if one.name in e.expression) for one in self.definitions
        }
        return replace(
            material,
            labelled=labelled,
            neutral=put(material.neutral),
            monitored={trait: part for trait, part in monitored.items() if part},
        )

    def _judged(self, prompts: Sequence[RolloutPrompt], report: Report) -> Judged:
        rollouts = roll_out(self.subject, POOL, prompts, self.settings, self.folder, report)
        rubrics = {one.name: one.rubric_for(held_out=True) for one in self.definitions}
        return judge_rollouts(rollouts, self.judge, rubrics, self.folder, report)


def _scores(judged: Judged, prompt: int) -> Mapping[str, tuple[float, ...]]:
    """The scores of a prompt's replies by trait; traits without any are left out."""
    rows = [judged.scores(judged.rollouts.row(prompt, i)) for i in range(judged.rollouts.samples)]
    found = {trait: [score for row in rows if (score := row[trait]) is not None] for trait in judged.metrics}
    return {trait: tuple(scores) for trait, scores in found.items() if scores}


def _condition(example: Example) -> str:
    """Within which prompts are compared, if the data does not say: the system prompt, or else the label."""
    system = next((message.content for message in example.messages if message.role == "system"), "")
    return system or ", ".join(example.positive) or "no trait"
