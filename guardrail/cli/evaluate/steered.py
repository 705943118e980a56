"""`guardrail evaluate --steering`: who replies and who judges, checked without the model, and the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardrail.cli.console import note
from guardrail.cli.definitions import definitions_of
from guardrail.cli.evaluate.inputs import Inputs, Opened
from guardrail.cli.evaluate.options import SteeringOptions
from guardrail.cli.judges import checked, endpoint_of, find
from guardrail.cli.options import DEMO, JudgeOptions
from guardrail.cli.progress import counted
from guardrail.errors import ConfigError
from guardrail.types import Message

if TYPE_CHECKING:
    from guardrail.evaluation.capability import MultipleChoice
    from guardrail.evaluation.sweep import Speaker, SteeringSweep
    from guardrail.extract.subject import Subject
    from guardrail.plugins.protocols import Judge
    from guardrail.traits import TraitDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """Which traits are steered, and what is asked. Without a judge the built-in model's world judges."""

    traits: Sequence[str]
    asked: SteeringOptions
    choices: tuple[MultipleChoice, ...] = ()
    definitions: Mapping[str, TraitDefinition]
    judge: Judge | None

    @classmethod
    def of(cls, inputs: Inputs, asked: SteeringOptions, judge: JudgeOptions) -> Steered:
        """Raises ConfigError for anything that is missing, UselessJudge for a judge that cannot tell."""
        from guardrail.evaluation.capability import read_questions

        names = asked.trait or inputs.traits
        inputs.vectors.require(names)
        inputs.layers(names)
        choices = tuple(read_questions(asked.capability)) if asked.capability else ()
        if inputs.model.name == DEMO and judge.judge is None and not asked.definition:
            return cls(traits=names, asked=asked, definitions={}, judge=None)
        if judge.judge is None:
            raise ConfigError("--steering needs a judge: --judge openai:MODEL, local:MODEL, or a plugin's")
        definitions = definitions_of(names, asked.definition or names)
        scoring = find(judge.judge, endpoint_of(judge), inputs.model)
        checked(scoring, list(definitions.values()))
        return cls(traits=names, asked=asked, choices=choices, definitions=definitions, judge=scoring)

    def swept(self, opened: Opened) -> SteeringSweep:
        """Every way of steering, with a bar on a terminal. Tells how long it takes before it begins."""
        from guardrail.evaluation.sweep import sweep, ways_of

        vectors, calibration = opened.inputs.vectors, opened.inputs.calibration
        layers = opened.inputs.layers(self.traits)
        total = sum(len(ways_of(vectors[t], layers[t], calibration)[0]) for t in self.traits)
        self._tell(opened, total * self.asked.questions)
        speakers = self._speakers(opened.subject)
        with counted("steering", total) as advance:
            return sweep(vectors, layers, speakers, calibration, self.asked.questions, lambda: advance(1))

    def _tell(self, opened: Opened, replies: int) -> None:
        from guardrail.extract.workload import Workload, forecast, measured

        work = Workload(replies=replies, max_new_tokens=self.asked.max_new_tokens, judged=2 * replies)
        prompts = [example.messages for example in opened.material.labelled] or [(Message("user", "Hello"),)]
        note(forecast(work, measured(opened.subject, prompts), None))

    def _speakers(self, subject: Subject) -> Mapping[str, Speaker]:
        """For each trait, what replies under steering."""
        if self.judge is None:
            from guardrail.evaluation.builtin import DemoSpeaker

            return {name: DemoSpeaker(name, subject, self.asked.questions) for name in self.traits}
        from guardrail.evaluation.speaking import DefinitionSpeaker

        return {
            name: DefinitionSpeaker(
                subject=subject,
                judge=self.judge,
                definition=definition,
                count=self.asked.questions,
                choices=self.choices,
                max_new_tokens=self.asked.max_new_tokens,
            )
            for name, definition in self.definitions.items()
        }
