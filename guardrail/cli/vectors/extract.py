"""`guardrail vectors extract`: from trait definitions to a vector file.

Exit codes: 0 done; 1 a finding: a trait cannot be induced, or the judge is useless; 2 a usage error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.console import note
from guardrail.cli.judges import checked, chosen
from guardrail.cli.models import load_subject, sleep_while_waiting
from guardrail.cli.options import (
    DEMO,
    JudgeOptions,
    ModelOptions,
    OutputOptions,
    RunnerOptions,
    takes_options,
)
from guardrail.cli.progress import staged
from guardrail.cli.prompts import conversations
from guardrail.cli.vectors.findings import show, show_nothing
from guardrail.cli.vectors.options import (
    DirectionOptions,
    NewFileOptions,
    RolloutOptions,
    extraction_settings,
)
from guardrail.errors import ConfigError, NotInduced, TooFewPairs, UselessJudge

if TYPE_CHECKING:
    from guardrail.extract.extraction import Extraction
    from guardrail.extract.settings import ExtractionSettings
    from guardrail.traits import TraitDefinition
    from guardrail.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitOptions:
    """The traits that get vectors."""

    trait: Annotated[list[str] | None, Option(help="Name or file of a trait. May be repeated.")] = None
    every: Annotated[bool, Option("--all", help="Extract all built-in traits.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs, read and checked without a model."""

    definitions: Sequence[TraitDefinition]
    mixed: Sequence[Sequence[Message]]
    settings: ExtractionSettings
    work: Path


@takes_options
def extract(
    files: NewFileOptions,
    traits: TraitOptions,
    model: ModelOptions,
    judge: JudgeOptions,
    rollouts: RolloutOptions,
    directions: DirectionOptions,
    spread: RunnerOptions,
    output: OutputOptions,
) -> None:
    """Create trait vectors: generate replies, judge and filter them, read activations.

    If interrupted, run the same command again to resume.
    """
    inputs = Inputs(
        definitions=_definitions(traits.trait or [], traits.every, model.name, rollouts.questions),
        mixed=conversations(directions.mixed) if directions.mixed else [],
        settings=extraction_settings(rollouts, directions),
        work=files.folder(files.out, "work"),
    )
    try:
        found = _extracted(inputs, model, judge, spread)
    except (NotInduced, TooFewPairs, UselessJudge) as error:
        show_nothing(error, inputs.work, output.as_json)
        raise typer.Exit(1) from error
    found.vectors.save(files.out)
    show(found, files.out, output.as_json)
    if found.failed:
        raise typer.Exit(1)


def _extracted(
    inputs: Inputs, model: ModelOptions, options: JudgeOptions, spread: RunnerOptions
) -> Extraction:
    from guardrail.plugins.manager import Plugins

    methods = Plugins.from_environment().extraction_methods
    inputs.settings.check(methods.keys(), len(inputs.definitions))
    judge = chosen(options, model, inputs.work / "judge-cache.sqlite")
    inputs.work.mkdir(parents=True, exist_ok=True)
    sleep_while_waiting()
    from guardrail.extract.extraction import Extractor, check_folder
    from guardrail.extract.prompts import trait_prompts
    from guardrail.extract.workload import forecast, measured

    check_folder(inputs.work, inputs.definitions, inputs.settings, judge, inputs.mixed)
    checks = checked(judge, inputs.definitions)
    subject = load_subject(model, inputs.settings.rollouts.batch, spread)
    with staged() as report:
        extractor = Extractor(
            subject, judge, inputs.definitions, methods, inputs.settings, inputs.work, report
        )
        prompts = [
            prompt.messages for prompt in trait_prompts(inputs.definitions[0], inputs.settings.systems)
        ]
        note(forecast(extractor.workload(inputs.mixed), measured(subject, prompts), checks.seconds_each))
        return extractor.run(now(), inputs.mixed)


def _definitions(
    traits: Sequence[str], every: bool, model: str, questions: int | None
) -> list[TraitDefinition]:
    from guardrail.demo import TRAITS
    from guardrail.traits import builtin_traits, load_definition

    own = {path.stem: path for path in TRAITS.glob("*.yaml")} if model == DEMO else {}
    names = [*(sorted(own) or builtin_traits() if every else ()), *traits]
    if not names:
        raise ConfigError("no trait: name one with --trait, or all with --all")
    found = [load_definition(own.get(name, name)) for name in dict.fromkeys(names)]
    return [one.with_questions(questions) for one in found]


def now() -> str:
    """The time, or SOURCE_DATE_EPOCH for files that must be the same in every build."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return now.isoformat(timespec="seconds")
