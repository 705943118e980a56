"""`guardrail interpret heads`: heads that attend to groups, and what answers are without them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.console import percent, print_json, print_table
from guardrail.cli.interpret.asking import AskingOptions
from guardrail.cli.interpret.reporting import ReportOptions, WorkOption
from guardrail.cli.options import DEMO, ModelOptions, OutputOptions, takes_options
from guardrail.cli.progress import staged
from guardrail.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from guardrail.extract.journal import Report
    from guardrail.interpret.accuracy.items import Item
    from guardrail.interpret.accuracy.prompts import Asker
    from guardrail.interpret.heads.contexts import Contexts
    from guardrail.interpret.heads.results import AblationResult, Head, HeadResult, HeadStudy
    from guardrail.interpret.heads.words import Groups
    from guardrail.statistics.intervals import Estimate

HEAD = ("head", "group", "on word (%)", "neutral (%)", "elsewhere (%)", "g", "adjusted p")
SHOWN = 15
"""Heads that are printed; the report and --json have all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOptions:
    """What is compared, and which heads are scaled."""

    words: Annotated[
        Path | None,
        Option(
            help='JSON Lines: {"group": "race", "word": "Asian"}; the group `neutral` holds the controls. '
            "Default: race, nationality and colour words; for `demo` the nationalities that it knows."
        ),
    ] = None
    template: Annotated[
        list[str] | None, Option(help="Sentence with {who} for the word. Repeat for several. Default: three.")
    ] = None
    items: Annotated[int, Option(min=2, help="Maximum number of items to ask with each word.")] = 12
    head: Annotated[list[str] | None, Option(help="Head to scale, as LAYER.HEAD. Repeat for several.")] = None
    top: Annotated[
        int | None, Option(min=1, help="Scale this many of the heads found, the strongest ones.")
    ] = None
    factor: Annotated[float, Option(help="Factor for the scaled heads; 0 ablates them.")] = 0.0

    def __post_init__(self) -> None:
        if self.head and self.top:
            raise ConfigError("--top chooses the heads itself; leave out --head")

    def groups(self, model: str) -> Groups:
        """Words by group."""
        from guardrail.interpret.heads.words import DEMO_WORDS, WORDS, read_words

        if self.words is not None:
            return read_words(self.words)
        return DEMO_WORDS if model == DEMO else WORDS

    def templates(self, model: str) -> list[str]:
        """Sentences with the word."""
        from guardrail.interpret.heads.words import DEMO_TEMPLATES, TEMPLATES

        return self.template or list(DEMO_TEMPLATES if model == DEMO else TEMPLATES)

    def named(self) -> list[Head]:
        """The heads of --head. Raises ConfigError for what is not a head."""
        from guardrail.interpret.heads.results import Head

        return [Head.parse(text) for text in self.head or ()]


@takes_options
def heads(
    options: HeadOptions,
    asking: AskingOptions,
    model: ModelOptions,
    reports: ReportOptions,
    kept: WorkOption,
    output: OutputOptions,
) -> None:
    """Find heads that attend from the answer to words of a group; scale heads and see what changes.

    Attention is weighted by the values that it moves. Each group is compared with neutral words in the same
    place, and with the other tokens of the same prompt.
    """
    reports.check()
    kept.check()
    items, groups, named = asking.items(model.name), options.groups(model.name), options.named()
    chosen = _spread(items, options.items)
    with staged() as report:
        from guardrail.interpret.heads.contexts import contexts
        from guardrail.interpret.heads.scaling import ablation, check

        asker = asking.asker(model)
        check(asker.subject, named)
        given = contexts(asker, groups, options.templates(model.name), chosen)
        study = _study(named, asker, given, model.name, report, kept.work)
        scaled = named or study.top(options.top or 0)
        scale = partial(ablation, asker, given, chosen, factor=options.factor, report=report, work=kept.work)
        found = scale(scaled) if scaled else None
    _publish(study, found, reports, output.as_json)


def _study(
    named: list[Head], asker: Asker, given: Contexts, name: str, report: Report, work: Path | None
) -> HeadStudy:
    """What heads attend to. Where that cannot be read, named heads can still be scaled."""
    from guardrail.interpret.heads.attending import attending, unread

    try:
        return attending(asker, given, name, report, work)
    except ModelError as error:
        if not named:
            raise ModelError(f"{error}; heads named with --head can still be scaled") from error
        return unread(asker, given, name, f"{error}: heads are scaled without it")


def _spread(items: list[Item], count: int) -> list[Item]:
    """This many items, from all over the file."""
    if len(items) <= count:
        return items
    return [items[i * len(items) // count] for i in range(count)]


def _publish(study: HeadStudy, found: AblationResult | None, reports: ReportOptions, as_json: bool) -> None:
    from guardrail.report.heads import figures, page

    written = reports.write(lambda: page(study, found), lambda: figures(study))
    if as_json:
        print_json({"heads": study.as_json(), "scaled": found.as_json() if found else None})
        return
    print_heads(study)
    if found:
        print_scaled(found)
    for path in written:
        typer.echo(f"\n{path}: written")


def print_heads(study: HeadStudy) -> None:
    """Print the heads found, and how many there are in each group."""
    if strongest := study.strongest():
        print_table(HEAD, [_row(one) for one in strongest[:SHOWN]])
        typer.echo("")
    for group, one in study.concentration.items():
        typer.echo(
            f"{group}: {one.found} of {one.heads} heads attend to it beyond neutral words and the rest "
            f"of the prompt, {one.fewer} less than to neutral words; the strongest twentieth of heads holds "
            f"{100 * one.top:.0f} % of the excess"
        )
    words = ", ".join(f"{len(words)} {group}" for group, words in study.words.items())
    typer.echo(f"{words} words in {study.contexts} prompts each; false-discovery rate 5 %")
    _print_notes(study)


def _print_notes(study: HeadStudy) -> None:
    for line in study.notes:
        typer.echo(line)
    for word, reason in study.rejected.items():
        typer.echo(f"left out: `{word}`: {reason}")


def _row(one: HeadResult) -> tuple[object, ...]:
    shares = (f"{100 * share:.2f}" for share in (one.word.value, one.neutral, one.elsewhere))
    return (str(one.head), one.group, *shares, f"{one.effect:.2f}", f"{one.q:.2g}")


def print_scaled(found: AblationResult) -> None:
    """Print effect and accuracy before and after, and what random heads do."""
    typer.echo(f"\nheads {', '.join(map(str, found.heads))} times {found.factor:g}, {found.items} items:")
    random = [_random(found, group) for group in (None, *found.effect)]
    head = ("", "before (%)", "after (%)", "change (points)", "by random heads (points)")
    print_table(
        head,
        [
            (name, *(percent(one, 2) for one in values), other)
            for (name, *values), other in zip(_measures(found), random, strict=True)
        ],
    )


def _measures(found: AblationResult) -> list[tuple[str, Estimate, Estimate, Estimate]]:
    """What is measured: before, after, and the change."""
    scaled = found.scaled
    rows = [("accuracy", found.accuracy, scaled.accuracy, scaled.accuracy_change)]
    effects = found.effect.items()
    return rows + [(f"effect of {g}", was, scaled.effect[g], scaled.effect_change[g]) for g, was in effects]


def _random(found: AblationResult, group: str | None) -> str:
    changes = [one.accuracy_change if group is None else one.effect_change[group] for one in found.random]
    return ", ".join(f"{100 * one.value:.2f}" for one in changes) or "(layers have too few other heads)"
