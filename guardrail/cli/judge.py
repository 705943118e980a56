"""`guardrail judge agreement | check`: whether a judge can be trusted, before anything is built on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from typer import Option

from guardrail.cli.console import interval, print_json, print_table
from guardrail.cli.judges import endpoint_of, find
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, OutputOptions, add_group, takes_options
from guardrail.cli.panels import Panel
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.extract.judges.agreement import Agreement
    from guardrail.extract.judges.check import JudgeChecks
    from guardrail.extract.judges.labels import Compared, Label
    from guardrail.plugins.protocols import Judge


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    about = "Measure how well judges tell replies apart, and agree with human labels."
    add_group(app, "judge", about, check=check, agreement=agreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """What people said, and about which traits."""

    labels: Annotated[Path, Option(help="JSON Lines or CSV: question, answer, trait, and label or score.")]
    definitions: Annotated[
        list[Path] | None, Option("--definition", help="Definition file of a trait that is not built in.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOption:
    """The scores that are kept."""

    panel: ClassVar = Panel.JUDGE

    judge_cache: Annotated[Path | None, Option(help="File that keeps scores for later runs.")] = None


@takes_options
def check(
    judge: JudgeOptions,
    cache: CacheOption,
    model: ModelOptions,
    trait: Annotated[
        list[str] | None, Option(help="Name or file of a trait. Default: built-in ones.")
    ] = None,
    *,
    output: OutputOptions,
) -> None:
    """Let a judge rate a few pairs of replies where it is obvious which one shows the trait.

    The exit code is 1 if it does no better than chance on a trait: it is useless for this trait.
    --device, --device-map and --dtype are for a judge local:MODEL. --model, --chat-template and --engine
    are refused.
    """
    from guardrail.extract.judges.check import check_judge
    from guardrail.traits import load_definition

    definitions = [load_definition(name) for name in trait or _checkable(judge.judge or DEMO)]
    found = check_judge(_judge(judge, cache, model), definitions)
    if output.as_json:
        print_json({**asdict(found), "useful": {one.metric: one.useful for one in found.checks}})
    else:
        _print_checks(found, [one.name for one in definitions])
    if not all(one.useful for one in found.checks):
        raise typer.Exit(1)


def _checkable(judge: str) -> list[str]:
    """The built-in traits that a judge may know."""
    from guardrail.extract.judges.rules import REFUSAL, RefusalRule
    from guardrail.traits import builtin_traits

    return [REFUSAL] if judge == RefusalRule.name else list(builtin_traits())


def _print_checks(found: JudgeChecks, traits: Sequence[str]) -> None:
    columns = ("", "pairs won", "needed", "difference", "without a score", "numeric mass", "")
    rows = [
        (
            *(one.metric, f"{one.won} of {one.pairs}", one.needed, one.difference, one.unscored),
            *(one.numeric_mass, "useful" if one.useful else "useless for this"),
        )
        for one in found.checks
    ]
    print_table(columns, rows, title=f"{found.judge}, on replies where the right one is obvious")
    for one in found.checks:
        if not one.useful:
            typer.echo(f"useless for this: {one.finding}")
    for name in sorted({*traits} - {one.metric for one in found.checks}):
        typer.echo(f"not checked: {name}: its definition has no `examples`")


@takes_options
def agreement(
    given: LabelOptions,
    judge: JudgeOptions,
    cache: CacheOption,
    model: ModelOptions,
    output: OutputOptions,
) -> None:
    """Agreement and Cohen's kappa of a judge with human labels, with 95 % intervals.

    --device, --device-map and --dtype are for a judge local:MODEL. --model, --chat-template and --engine
    are refused.
    """
    from guardrail.extract.judges.labels import compare, read_labels

    found = read_labels(given.labels)
    rubrics = _rubrics(found, given.definitions or [])
    compared = compare(_judge(judge, cache, model), found, rubrics)
    if output.as_json:
        print_json(compared)
    else:
        _print(compared)


def _judge(options: JudgeOptions, cache: CacheOption, model: ModelOptions) -> Judge:
    if model != ModelOptions(device=model.device, dtype=model.dtype, device_map=model.device_map):
        raise ConfigError(
            "--model, --chat-template, --engine: a judge has its own; name its model with --judge local:MODEL"
        )
    return find(options.judge or DEMO, endpoint_of(options), model, cache.judge_cache)


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
    mass = compared.numeric_mass
    told = "" if mass is None else f"; numbers had {mass:.1%} of the probability of its answers"
    title = f"{compared.judge} against people, 95 % intervals{told}"
    print_table(columns, [_row(a) for a in compared.traits], title=title)
    for one in compared.traits:
        if not one.n:
            typer.echo(f"{one.trait}: nothing is known; the judge scored none of {one.refused} replies")


def _row(a: Agreement) -> tuple[object, ...]:
    numbers = (interval(a.agreement), interval(a.kappa), interval(a.correlation))
    return (a.trait, a.n, a.refused, *numbers, a.both, a.judge_only, a.people_only, a.neither)
