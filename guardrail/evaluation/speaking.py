"""Lets a real model answer a definition's evaluation questions under steering, and has it judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from guardrail.evaluation.capability import MultipleChoice, right
from guardrail.evaluation.sweep import Prompts, Spoken
from guardrail.extract.judges.scores import coherence_scores, trait_scores
from guardrail.extract.layers.sweep import Questions
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import Judge
from guardrail.traits import TraitDefinition
from guardrail.types import Steering


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionSpeaker:
    """Asks the first `count` evaluation questions, which no vector was made from."""

    subject: Subject
    judge: Judge
    definition: TraitDefinition
    count: int
    choices: tuple[MultipleChoice, ...] = field(default=(), repr=False)
    max_new_tokens: int = 256

    def spoken(self, prompts: Prompts, steering: Sequence[Steering]) -> Spoken:
        """One sampled reply to each question, its scores, and the multiple-choice questions."""
        questions = Questions.of(self.definition)
        asked = (questions.plain if prompts == "neutral" else questions.asking)[: self.count]
        replies = self.subject.replies(
            [prompt.messages for prompt in asked],
            seeds=range(len(asked)),
            max_new_tokens=self.max_new_tokens,
            steering=steering,
        )
        said = list(zip(asked, replies, strict=True))
        return Spoken(
            trait_scores(self.judge, self.definition, said),
            coherence_scores(self.judge, said),
            right(self.subject, self.choices, steering) if self.choices else (),
        )
