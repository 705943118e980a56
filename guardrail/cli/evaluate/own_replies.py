"""`guardrail evaluate --own-replies`: what the user's own model says to the labelled prompts, judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.console import note
from guardrail.cli.definitions import definitions_of
from guardrail.cli.evaluate.inputs import Inputs, Opened
from guardrail.cli.evaluate.options import DataOptions, SteeringOptions
from guardrail.cli.judges import checked, chosen
from guardrail.cli.options import JudgeOptions
from guardrail.cli.progress import staged

if TYPE_CHECKING:
    from guardrail.evaluation.own_replies import OwnReplies
    from guardrail.extract.rollouts import RolloutSettings
    from guardrail.extract.subject import Subject
    from guardrail.plugins.protocols import Judge
    from guardrail.traits import TraitDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Replying:
    """How the model replies, and who judges that, checked without the model."""

    judge: Judge
    seconds_each: float | None
    """Of the judge's answers."""
    definitions: Sequence[TraitDefinition]
    settings: RolloutSettings
    folder: Path

    @classmethod
    def of(cls, inputs: Inputs, asked: SteeringOptions, judge: JudgeOptions) -> Replying:
        """Raises ConfigError for anything that is missing, UselessJudge for a judge that cannot tell."""
        folder = _folder(inputs.data)
        definitions = list(definitions_of(inputs.traits, asked.definition or inputs.traits).values())
        folder.mkdir(parents=True, exist_ok=True)
        scoring = chosen(judge, inputs.model, folder / "judge-cache.sqlite")
        return cls(
            judge=scoring,
            seconds_each=checked(scoring, definitions).seconds_each,
            definitions=definitions,
            settings=_settings(inputs.data, asked),
            folder=folder,
        )

    def expressed(self, opened: Opened) -> Opened:
        """With the expression of replies that are made here. Tells how long that takes before it begins."""
        from guardrail.extract.workload import forecast, measured

        own = self._own(opened.subject)
        speed = measured(opened.subject, [example.messages for example in opened.material.labelled])
        note(forecast(own.workload(opened.material), speed, self.seconds_each))
        with staged() as report:
            return replace(opened, material=own.expressed(opened.material, report))

    def _own(self, subject: Subject) -> OwnReplies:
        from guardrail.evaluation.own_replies import OwnReplies

        return OwnReplies(
            subject=subject,
            judge=self.judge,
            definitions=self.definitions,
            settings=self.settings,
            folder=self.folder,
        )


def _settings(data: DataOptions, asked: SteeringOptions) -> RolloutSettings:
    from guardrail.extract.rollouts import RolloutSettings

    assert data.own_replies is not None
    return RolloutSettings(samples=data.own_replies, max_new_tokens=asked.max_new_tokens)


def _folder(data: DataOptions) -> Path:
    assert data.data is not None
    return data.work or data.data.with_name(f"{data.data.name}.own-replies")
