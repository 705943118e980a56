"""The sweeps of `guardrail vectors layers`: definitions, judge, model, and the folder that keeps results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.console import note
from guardrail.cli.definitions import definition_of
from guardrail.cli.judges import checked, chosen
from guardrail.cli.models import glimpse_of, sleep_while_waiting
from guardrail.cli.options import JudgeOptions, ModelOptions, settings
from guardrail.cli.progress import staged
from guardrail.cli.vectors.options import Selector, SweepOptions

if TYPE_CHECKING:
    from guardrail.extract.layers.effects import SweepSettings, Trial
    from guardrail.extract.layers.measurements import Sweep
    from guardrail.extract.subject import Subject
    from guardrail.plugins.protocols import Judge
    from guardrail.traits import TraitDefinition
    from guardrail.vectors.values import TraitVector


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """What a sweep over the layers needs."""

    model: ModelOptions
    judge: JudgeOptions
    selector: Selector
    asked: SweepOptions
    work: Path
    subject: Callable[[], Subject]
    """Loads the model; called once, after what can be checked without it."""

    def sweeps(self, vectors: Sequence[TraitVector]) -> list[Sweep]:
        """Measured, or read from the folder if it has them. Each is also saved as WORK/TRAIT/sweep.json."""
        definitions = [
            definition_of(vector.trait, self.asked.definition, self.model.name).with_questions(
                self.asked.questions
            )
            for vector in vectors
        ]
        self._check_layers(vectors)
        measured = self._separated if self.selector is Selector.SEPARATION else self._judged
        return measured(vectors, definitions)

    def _check_layers(self, vectors: Sequence[TraitVector]) -> None:
        sleep_while_waiting()
        from guardrail.extract.layers.sweep import check_fits, usable

        seen = glimpse_of(self.model)
        for vector in vectors:
            usable(vector, self.asked.tried())
            if seen is not None:
                check_fits(seen, vector)

    def _separated(
        self, vectors: Sequence[TraitVector], definitions: Sequence[TraitDefinition]
    ) -> list[Sweep]:
        """Needs no judge and no replies."""
        subject = self.subject()
        from guardrail.extract.layers.sweep import sweep_separation

        return [
            self._saved(sweep_separation(subject, vector, definition, self.asked.tried()))
            for vector, definition in zip(vectors, definitions, strict=True)
        ]

    def _judged(self, vectors: Sequence[TraitVector], definitions: Sequence[TraitDefinition]) -> list[Sweep]:
        judge = chosen(self.judge, self.model, self.work / "judge-cache.sqlite")
        self.work.mkdir(parents=True, exist_ok=True)
        checks, asked = checked(judge, definitions), self._settings()
        self._check_folders(vectors, definitions, judge)
        subject = self.subject()
        from guardrail.extract.layers.effects import Trial
        from guardrail.extract.layers.sweep import measure

        trials = [
            Trial(subject=subject, judge=judge, definition=definition, settings=asked)
            for definition in definitions
        ]
        self._tell(trials, vectors, checks.seconds_each)
        with staged() as report:
            return [
                self._saved(measure(self.selector.value, trial, vector, self._folder(vector.trait), report))
                for trial, vector in zip(trials, vectors, strict=True)
            ]

    def _tell(self, trials: Sequence[Trial], vectors: Sequence[TraitVector], judge_s: float | None) -> None:
        """Say how long it will take."""
        from guardrail.extract.layers.sweep import Questions, workload
        from guardrail.extract.workload import Workload, forecast, measured

        work = Workload()
        for trial, vector in zip(trials, vectors, strict=True):
            work += workload(self.selector.value, trial, vector, self._folder(vector.trait))
        prompts = [prompt.messages for prompt in Questions.of(trials[0].definition).plain]
        note(forecast(work, measured(trials[0].subject, prompts), judge_s))

    def _check_folders(
        self, vectors: Sequence[TraitVector], definitions: Sequence[TraitDefinition], judge: Judge
    ) -> None:
        sleep_while_waiting()
        from guardrail.extract.layers.sweep import check_folder

        asked = self._settings()
        for vector, definition in zip(vectors, definitions, strict=True):
            check_folder(self.selector.value, self.work / vector.trait, vector, definition, judge, asked)

    def _settings(self) -> SweepSettings:
        from guardrail.extract.layers.effects import SweepSettings

        return settings(SweepSettings, self.asked, layers=self.asked.tried())

    def _folder(self, trait: str) -> Path:
        folder = self.work / trait
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _saved(self, sweep: Sweep) -> Sweep:
        sweep.save(self._folder(sweep.trait) / "sweep.json")
        return sweep
