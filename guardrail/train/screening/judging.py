"""Has a judge score samples for the traits that they are screened for: a second opinion that reads text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardrail.extract.journal import Recipe
from guardrail.extract.judges.opinions import opinions
from guardrail.plugins.protocols import Judge, JudgeRequest
from guardrail.train.screening.rows import Exchange, Sample


@dataclass(frozen=True, slots=True)
class SampleJudge:
    """A judge, and its rubric for each trait. Traits without a rubric have no score."""

    judge: Judge
    rubrics: Mapping[str, str]

    @property
    def recipe(self) -> Recipe:
        """What scores depend on."""
        return {"name": self.judge.name, "rubrics": dict(self.rubrics)}

    def scores(self, samples: Sequence[Sample], traits: Sequence[str]) -> list[list[float | None]]:
        """[samples][traits]: 0 to 100, of the highest reply. None if the judge rates none of them.

        Raises JudgeError if the judge cannot be reached.
        """
        asked = [
            (i, trait, one)
            for i, sample in enumerate(samples)
            for trait in traits
            if trait in self.rubrics
            for one in sample.exchanges
        ]
        found: list[list[float | None]] = [[None] * len(traits) for _ in samples]
        answers = opinions(self.judge, [self._request(trait, one) for _, trait, one in asked])
        for (i, trait, _), opinion in zip(asked, answers, strict=True):
            place = traits.index(trait)
            known = [one for one in (found[i][place], opinion.score) if one is not None]
            found[i][place] = max(known, default=None)
        return found

    def _request(self, trait: str, one: Exchange) -> JudgeRequest:
        return JudgeRequest(metric=trait, rubric=self.rubrics[trait], question=one.asked, answer=one.reply)
