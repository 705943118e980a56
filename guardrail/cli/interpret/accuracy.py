"""`guardrail interpret accuracy`: multiple-choice accuracy with and without personas."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.console import percent, print_json, print_table
from guardrail.cli.definitions import definition_of
from guardrail.cli.interpret.asking import AskingOptions
from guardrail.cli.interpret.reporting import ReportOptions, WorkOption
from guardrail.cli.options import DEMO, ModelOptions, OutputOptions, takes_options
from guardrail.cli.places import check_file
from guardrail.cli.progress import staged
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.interpret.accuracy.personas import Persona
    from guardrail.interpret.accuracy.results import AccuracyResult, PersonaResult

HEAD = ("persona", "accuracy (%)", "difference (points)", "changed", "gained", "lost", "p", "adjusted p")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonaOptions:
    """Who the model is told to be."""

    identity: Annotated[
        list[str] | None, Option(help="Word for the identity slot of --template. Repeat for several.")
    ] = None
    template: Annotated[
        str | None,
        Option(
            help="Sentence with {who} or {an} (the word with its article). Default: `You are {an} student.`; "
            "for `demo` `You are {who}.`"
        ),
    ] = None
    trait: Annotated[
        list[str] | None, Option(help="Trait whose first positive instruction is a persona.")
    ] = None
    definition: Annotated[
        Path | None, Option(help="Definition file or folder, for traits that are not built in.")
    ] = None
    persona: Annotated[list[str] | None, Option(help="Whole persona text.")] = None

    def personas(self, model: str) -> list[Persona]:
        """Raises ConfigError if there are none, TraitError for traits without a definition."""
        from guardrail.interpret.accuracy import builtin
        from guardrail.interpret.accuracy.personas import TEMPLATE, Persona, identity, role

        on_demo = model == DEMO
        given = self.identity or self.trait or self.persona
        words = self.identity or (builtin.IDENTITIES if on_demo and not given else ())
        template = self.template or (builtin.TEMPLATE if on_demo else TEMPLATE)
        found = [identity(word, template) for word in words]
        found += [role(definition_of(trait, self.definition, model)) for trait in self.trait or ()]
        found += [Persona(text, text) for text in self.persona or ()]
        if not found:
            raise ConfigError("no persona: name some with --identity, --trait or --persona")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedOption:
    """Where the items go that can show an effect."""

    changed: Annotated[
        Path | None,
        Option(help="File (JSON Lines) for the items on which the personas' answers differ."),
    ] = None

    def __post_init__(self) -> None:
        check_file(self.changed)


@takes_options
def accuracy(
    personas: PersonaOptions,
    asking: AskingOptions,
    changed: ChangedOption,
    model: ModelOptions,
    reports: ReportOptions,
    kept: WorkOption,
    output: OutputOptions,
) -> None:
    """Measure multiple-choice accuracy with and without each persona.

    Run this before looking for the cause of an effect: a persona that changes no answer has none to find.
    """
    reports.check()
    kept.check()
    items, everyone = asking.items(model.name), personas.personas(model.name)
    with staged() as report:
        from guardrail.interpret.accuracy.study import accuracy as measure

        asker = asking.asker(model)
        found = measure(asker, items, everyone, model.name, report, kept.work)
    if changed.changed is not None:
        _write(found, changed.changed)
    _publish(found, reports, output.as_json)


def _write(found: AccuracyResult, path: Path) -> None:
    lines = [json.dumps({k: v for k, v in asdict(i).items() if k != "subject"}) for i in found.changed]
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _publish(found: AccuracyResult, reports: ReportOptions, as_json: bool) -> None:
    from guardrail.report.accuracy import figures, page

    written = reports.write(lambda: page(found), lambda: figures(found))
    if as_json:
        print_json(found.as_json())
        return
    print_accuracy(found)
    for path in written:
        typer.echo(f"\n{path}: written")


def print_accuracy(found: AccuracyResult) -> None:
    """Print one line per persona, and on how many items personas differ."""
    print_table(HEAD, [_row(one) for one in found.personas])
    typer.echo(
        f"\n{len(found.items)} items ({found.form}, {found.scoring}); chance {100 * found.chance:.0f} %; "
        f"95 % intervals; the personas' answers differ on {len(found.changed)} items"
    )
    for line in found.notes:
        typer.echo(line)
    for one in found.personas[1:]:
        if one.effect and not one.effect.changed.value:
            typer.echo(f"`{one.name}` changes no answer: it has no effect on answers to be explained")


def _row(one: PersonaResult) -> tuple[object, ...]:
    if one.effect is None:
        return (one.name, percent(one.accuracy), *([""] * 6))
    effect = one.effect
    changed = percent(effect.changed)
    tests = (f"{effect.p:.3g}", f"{effect.q:.3g}")
    return (
        *(one.name, percent(one.accuracy), percent(effect.difference), changed),
        *(str(effect.gained), str(effect.lost), *tests),
    )
