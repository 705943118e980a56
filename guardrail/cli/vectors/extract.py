"""`guardrail vectors extract`: from trait definitions to a vector file.

Exit codes: 0 done, 1 some traits could not be extracted, 2 none could, or a usage or configuration error.
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

from guardrail.cli.console import errors, print_json, print_table
from guardrail.cli.judges import endpoint_of, find
from guardrail.cli.models import load_subject, sleep_while_waiting
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, OutputOptions, takes_options
from guardrail.cli.progress import staged
from guardrail.cli.vectors.options import (
    DirectionOptions,
    NewFileOptions,
    RolloutOptions,
    extraction_settings,
)
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.extraction import Extraction
    from guardrail.extract.settings import ExtractionSettings
    from guardrail.traits import TraitDefinition
    from guardrail.types import Message
    from guardrail.vectors.provenance import TraitSource
    from guardrail.vectors.values import TraitVectors


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
    output: OutputOptions,
) -> None:
    """Create trait vectors: generate replies, judge and filter them, read activations.

    If interrupted, run the same command again to resume.
    """
    inputs = Inputs(
        definitions=_definitions(traits.trait or [], traits.every, model.name),
        mixed=_conversations(directions.mixed),
        settings=extraction_settings(rollouts, directions),
        work=files.folder("work"),
    )
    found = _extracted(inputs, model, judge)
    found.vectors.save(files.out)
    _show(found, files.out, output.as_json)
    if found.failed:
        raise typer.Exit(1)


def _extracted(inputs: Inputs, model: ModelOptions, options: JudgeOptions) -> Extraction:
    from guardrail.plugins.manager import Plugins

    methods = Plugins.from_environment().extraction_methods
    inputs.settings.check(methods.keys(), len(inputs.definitions))
    inputs.work.mkdir(parents=True, exist_ok=True)
    judge = find(options.judge or DEMO, endpoint_of(options), model, inputs.work / "judge-cache.sqlite")
    sleep_while_waiting()
    from guardrail.extract.extraction import Extractor, check_folder

    check_folder(inputs.work, inputs.definitions, inputs.settings, judge, inputs.mixed)
    subject = load_subject(model, inputs.settings.rollouts.batch)
    with staged() as report:
        extractor = Extractor(
            subject, judge, inputs.definitions, methods, inputs.settings, inputs.work, report
        )
        return extractor.run(_now(), inputs.mixed)


def _definitions(traits: Sequence[str], every: bool, model: str) -> list[TraitDefinition]:
    from guardrail.demo import TRAITS
    from guardrail.traits import builtin_traits, load_definition

    own = {path.stem: path for path in TRAITS.glob("*.yaml")} if model == DEMO else {}
    names = [*(sorted(own) or builtin_traits() if every else ()), *traits]
    if not names:
        raise ConfigError("no trait: name one with --trait, or all with --all")
    return [load_definition(own.get(name, name)) for name in dict.fromkeys(names)]


def _conversations(path: Path | None) -> list[tuple[Message, ...]]:
    from guardrail.cli.prompts import from_json_lines
    from guardrail.pipeline.request import request

    prompts = from_json_lines(path) if path else []
    read = [(prompt.name, request("check", prompt.content)) for prompt in prompts]
    if bad := [f"{name}: {one.unreadable}" for name, one in read if one.unreadable]:
        raise ConfigError("\n".join(bad))
    return [one.messages for _, one in read]


def _now() -> str:
    """The time, or SOURCE_DATE_EPOCH for files that must be the same in every build."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return now.isoformat(timespec="seconds")


def _show(found: Extraction, out: Path, as_json: bool) -> None:
    failed = {trait: str(error) for trait, error in found.failed.items()}
    if as_json:
        vectors = found.vectors
        print_json({"out": out, "sha256": vectors.sha256, "provenance": vectors.provenance, "failed": failed})
        return
    _print_found(found.vectors)
    for message in failed.values():
        errors().print(f"[bold red]not extracted[/]  {message}")
    typer.echo(f"wrote {out}. No layer is chosen: name one in policies, or run `guardrail vectors layers`")


def _print_found(vectors: TraitVectors) -> None:
    scores = ("score with", "without", "plain")
    columns = ("trait", "pairs kept", "of", *scores, "split half", "auroc", "others", "at layer")
    print_table(columns, [(name, *_row(source)) for name, source in vectors.provenance.traits.items()])
    typer.echo(
        "score: mean judged score with instructions for the trait, against it, and without a system prompt. "
        "split half: cosine of two halves. auroc, others: from plain prompts and from other traits, held out."
    )


def _row(source: TraitSource) -> tuple[object, ...]:
    """One trait, at the layer that separates best."""
    rest = source.others_auroc or source.detection_auroc
    areas = [own + other for own, other in zip(source.detection_auroc, rest, strict=True)]
    best = areas.index(max(areas))
    halves = source.stability.split_half[best + 1] if source.stability else None
    others = source.others_auroc[best] if source.others_auroc else None
    scores = (source.positive_mean, source.negative_mean, source.baseline)
    return (source.positive, source.rollouts, *scores, halves, source.detection_auroc[best], others, best + 1)
