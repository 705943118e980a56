"""Running the sweeps of `guardrail vectors layers`: definitions, judge, model, and where results stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.console import errors
from guardrail.cli.guards import silence
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.journal import Report
    from guardrail.extract.layers.effects import SweepSettings
    from guardrail.extract.layers.measurements import Sweep
    from guardrail.extract.subject import Subject
    from guardrail.plugins.protocols import Judge
    from guardrail.traits import TraitDefinition
    from guardrail.vectors.values import TraitVector


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """What is needed to try layers out."""

    model: str
    selector: str
    definition: Path | None
    judge: str | None
    base_url: str | None
    api_key_env: str
    settings: SweepSettings
    work: Path
    device: str | None

    def sweeps(self, vectors: Sequence[TraitVector]) -> list[Sweep]:
        """Measured or, where the folder has them, read; each also saved as WORK/TRAIT/sweep.json."""
        from guardrail.cli.progress import staged

        definitions = [self._definition(vector.trait) for vector in vectors]
        judge = None if self.selector == "separation" else self._judge()
        with errors().status(f"loading {self.model} ..."):
            from guardrail.extract.subject import Subject

            silence(self.model)
            subject = Subject.load(self.model, device=self.device)
        with staged() as report:
            return [
                self._sweep(subject, judge, vector, definition, report)
                for vector, definition in zip(vectors, definitions, strict=True)
            ]

    def _sweep(
        self,
        subject: Subject,
        judge: Judge | None,
        vector: TraitVector,
        definition: TraitDefinition,
        report: Report,
    ) -> Sweep:
        from guardrail.extract.layers.effects import Trial
        from guardrail.extract.layers.sweep import measure, sweep_separation

        folder = self.work / vector.trait
        folder.mkdir(parents=True, exist_ok=True)
        if judge is None:
            found = sweep_separation(subject, vector, definition)
        else:
            trial = Trial(subject=subject, judge=judge, definition=definition, settings=self.settings)
            found = measure(self.selector, trial, vector, folder, report)
        found.save(folder / "sweep.json")
        return found

    def _definition(self, trait: str) -> TraitDefinition:
        from guardrail import demo
        from guardrail.traits import load_definition

        in_world = demo.TRAITS / f"{trait}.yaml"
        if self.definition is None and self.model == "demo" and in_world.is_file():
            return load_definition(in_world)
        if self.definition is not None and self.definition.is_dir():
            return load_definition(self.definition / f"{trait}.yaml")
        return load_definition(self.definition or trait)

    def _judge(self) -> Judge:
        from guardrail.extract.endpoint.client import EndpointSettings
        from guardrail.extract.judges import find_judge
        from guardrail.plugins.manager import Plugins

        if self.judge is None and self.model != "demo":
            raise ConfigError("say who judges: --judge openai:MODEL, local:MODEL or a plugin's judge")
        address = self.base_url or EndpointSettings().base_url
        endpoint = EndpointSettings(base_url=address, api_key_env=self.api_key_env)
        self.work.mkdir(parents=True, exist_ok=True)
        cache = self.work / "judge-cache.sqlite"
        return find_judge(self.judge or "demo", Plugins.from_environment(), endpoint=endpoint, cache=cache)
