"""`guardrail judge agreement`: how often a judge agrees with people, before anything is built on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.console import print_json, print_table
from guardrail.cli.judges import endpoint_of, find
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, OutputOptions, add_group, takes_options
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.extract.judges.agreement import Agreement, Estimate
    from guardrail.extract.judges.labels import Compared, Label
    from guardrail.plugins.protocols import Judge


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    add_group(app, "judge", "Measure how well judges agree with human labels.", agreement=agreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """What people said, and about which traits."""

    labels: Annotated[Path, Option(help="JSON Lines: question, answer, trait, and label or score.")]
    definitions: Annotated[
        list[Path] | None, Option("--definition", help="Definition file of a trait that is not built in.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """How the judge is asked."""

    judge_cache: Annotated[Path | None, Option(help="File that keeps scores for later runs.")] = None
    requests_per_minute: Annotated[float | None, Option(min=0.01, help="Maximum requests per minute.")] = None
    concurrency: Annotated[int, Option(min=1, help="Maximum requests at the same time.")] = 8


@takes_options
def agreement(
    given: LabelOptions,
    judge: JudgeOptions,
    requests: RequestOptions,
    model: ModelOptions,
    output: OutputOptions,
) -> None:
    """Agreement and Cohen's kappa of a judge with human labels, with 95 % intervals.

    --device and --dtype are for a judge local:MODEL. --model, --chat-template and --engine are refused.
    """
    from guardrail.extract.judges.labels import compare, read_labels

    found = read_labels(given.labels)
    rubrics = _rubrics(found, given.definitions or [])
    compared = compare(_judge(judge, requests, model), found, rubrics)
    if output.as_json:
        print_json(compared)
    else:
        _print(compared)


def _judge(options: JudgeOptions, requests: RequestOptions, model: ModelOptions) -> Judge:
    if model != ModelOptions(device=model.device, dtype=model.dtype):
        raise ConfigError(
            "--model, --chat-template, --engine: a judge has its own; name its model with --judge local:MODEL"
        )
    endpoint = replace(
        endpoint_of(options),
        requests_per_minute=requests.requests_per_minute,
        concurrency=requests.concurrency,
    )
    return find(options.judge or DEMO, endpoint, model, requests.judge_cache)


def _rubrics(labels: Sequence[Label], files: Sequence[Path]) -> Mapping[str, str]:
    from guardrail.plugins.protocols import COHERENCE
    from guardrail.traits import load_definition

    own = {d.name: d for d in map(load_definition, files)}
    traits = dict.fromkeys(label.trait for label in labels if label.trait != COHERENCE)
    return {trait: (own[trait] if trait in own else load_definition(trait)).rubric for trait in traits}


def _print(compared: Compared) -> None:
    columns = (
        *("trait", "n", "refused", "agreement", "kappa", "r"),
        *("both", "judge only", "people only", "neither"),
    )
    title = f"{compared.judge} against people, 95 % intervals"
    print_table(columns, [_row(a) for a in compared.traits], title=title)


def _row(a: Agreement) -> tuple[object, ...]:
    numbers = (_interval(a.agreement), _interval(a.kappa), _interval(a.correlation))
    return (a.trait, a.n, a.refused, *numbers, a.both, a.judge_only, a.people_only, a.neither)


def _interval(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
