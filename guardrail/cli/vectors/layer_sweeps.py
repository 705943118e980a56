"""The sweeps of `guardrail vectors layers`: definitions, judge, model, and the folder that keeps results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.judges import checked, chosen
from guardrail.cli.models import load_subject, sleep_while_waiting
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, settings
from guardrail.cli.progress import staged
from guardrail.cli.vectors.options import Selector, SweepOptions

if TYPE_CHECKING:
    from guardrail.extract.journal import Report
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

    def sweeps(self, vectors: Sequence[TraitVector]) -> list[Sweep]:
        """Measured, or read from the folder if it has them. Each is also saved as WORK/TRAIT/sweep.json."""
        definitions = [self._definition(vector.trait) for vector in vectors]
        judge = None if self.selector is Selector.SEPARATION else self._judge(definitions)
        if judge is not None:
            self._check_folders(vectors, definitions, judge)
        subject = load_subject(self.model)
        with staged() as report:
            return [
                self._sweep(subject, judge, vector, definition, report)
                for vector, definition in zip(vectors, definitions, strict=True)
            ]

    def _check_folders(
        self, vectors: Sequence[TraitVector], definitions: Sequence[TraitDefinition], judge: Judge
    ) -> None:
        sleep_while_waiting()
        from guardrail.extract.layers.effects import SweepSettings
        from guardrail.extract.layers.sweep import check_folder

        asked = settings(SweepSettings, self.asked)
        for vector, definition in zip(vectors, definitions, strict=True):
            check_folder(self.selector.value, self.work / vector.trait, vector, definition, judge, asked)

    def _sweep(
        self,
        subject: Subject,
        judge: Judge | None,
        vector: TraitVector,
        definition: TraitDefinition,
        report: Report,
    ) -> Sweep:
        from guardrail.extract.layers.effects import SweepSettings, Trial
        from guardrail.extract.layers.sweep import measure, sweep_separation

        folder = self.work / vector.trait
        folder.mkdir(parents=True, exist_ok=True)
        if judge is None:
            found = sweep_separation(subject, vector, definition)
        else:
            asked = settings(SweepSettings, self.asked)
            trial = Trial(subject=subject, judge=judge, definition=definition, settings=asked)
            found = measure(self.selector.value, trial, vector, folder, report)
        found.save(folder / "sweep.json")
        return found

    def _definition(self, trait: str) -> TraitDefinition:
        from guardrail import demo
        from guardrail.traits import load_definition

        given, in_world = self.asked.definition, demo.TRAITS / f"{trait}.yaml"
        if given is None and self.model.name == DEMO and in_world.is_file():
            return load_definition(in_world)
        if given is not None and given.is_dir():
            return load_definition(given / f"{trait}.yaml")
        return load_definition(given or trait)

    def _judge(self, definitions: Sequence[TraitDefinition]) -> Judge:
        judge = chosen(self.judge, self.model, self.work / "judge-cache.sqlite")
        self.work.mkdir(parents=True, exist_ok=True)
        checked(judge, definitions)
        return judge
