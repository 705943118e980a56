"""`guardrail evaluate`: how well vectors detect and steer, and what shadow policies would have done.

Exit codes: 0, 1 where a gate is not passed, 2 for data or configuration that cannot be used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.console import JsonFlag, ModelName, PoliciesFile, errors, print_json
from guardrail.cli.guards import DEMO
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.evaluation.results import Evaluation
    from guardrail.evaluation.sweep import SteeringSweep


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate")(evaluate)


def evaluate(
    model: ModelName = DEMO,
    vectors: Annotated[
        str | None, typer.Option("--vectors", help="A vector file, or `demo`; else the policies' own.")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", help="A calibration, or `demo`; else the policies' own.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Labelled prompts (JSON Lines).")] = None,
    policies: PoliciesFile = None,
    layer: Annotated[int | None, typer.Option("--layer", min=1, help="One layer for all traits.")] = None,
    neutral: Annotated[
        Path | None, typer.Option("--neutral", help="Neutral prompts (JSON Lines) for the null directions.")
    ] = None,
    seen: Annotated[
        list[Path] | None,
        typer.Option("--seen", help="Prompts used before (JSON Lines): one that comes again is a leak."),
    ] = None,
    replies: Annotated[
        int, typer.Option("--replies", min=2, help="Replies to each prompt of the built-in set.")
    ] = 8,
    min_auroc: Annotated[
        float | None,
        typer.Option("--min-auroc", min=0, max=1, help="Gate: the lower end of each AUROC's interval."),
    ] = None,
    max_fpr: Annotated[
        float | None,
        typer.Option("--max-fpr", min=0, max=1, help="Gate: the upper end of each policy's FPR interval."),
    ] = None,
    steering: Annotated[bool, typer.Option("--steering", help="Also sweep over ways of steering.")] = False,
    trait: Annotated[list[str] | None, typer.Option("--trait", help="Steer only these traits.")] = None,
    questions: Annotated[
        int, typer.Option("--questions", min=1, help="Replies for each way of steering.")
    ] = 20,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Length of steered replies.")
    ] = 256,
    judge: Annotated[
        str | None, typer.Option("--judge", help="Who scores steered replies: openai:MODEL, local:MODEL ...")
    ] = None,
    definition: Annotated[
        list[str] | None, typer.Option("--definition", help="Trait definitions: names or files.")
    ] = None,
    capability: Annotated[
        Path | None, typer.Option("--capability", help="Multiple-choice questions (JSON Lines).")
    ] = None,
    shadow: Annotated[
        Path | None, typer.Option("--shadow", help="An audit log: what shadow policies would have done.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Labels of audit records (JSON Lines), for --shadow.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report, one HTML file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """How well the vectors detect. Without --data, `demo` is evaluated on its built-in held-out set.

    A gate is passed where the whole interval meets the demand; inconclusive is not passed.
    """
    _check_html(html)
    if shadow is not None:
        return _shadow(shadow, labels, html, as_json)
    if labels is not None:
        raise ConfigError("--labels are labels of the records of --shadow")
    from guardrail.cli.evaluate.inputs import Asked, Steered, open_inputs

    asked = Asked(
        model=model,
        vectors=vectors,
        calibration=calibration,
        policies=policies,
        data=data,
        layer=layer,
        neutral=neutral,
        seen=tuple(seen or ()),
        replies=replies,
    )
    opened = open_inputs(asked)
    speakers = (
        opened.speakers(
            Steered(
                traits=tuple(trait or ()),
                definitions=tuple(definition or ()),
                judge=judge,
                questions=questions,
                max_new_tokens=max_new_tokens,
                capability=capability,
            )
        )
        if steering
        else None
    )
    with errors().status("evaluating ..."):
        found = opened.evaluation(min_auroc, max_fpr)
    swept = opened.sweep(speakers, questions) if speakers else None
    _publish(found, swept, html, as_json)
    if any(gate.verdict != "passed" for gate in found.gates):
        raise typer.Exit(1)
    return None


def _check_html(html: Path | None) -> None:
    """Before anything long is begun."""
    if html is not None:
        from guardrail.report import check_installed

        check_installed()
        if not html.absolute().parent.is_dir():
            raise ConfigError(f"{html}: there is no such folder")


def _publish(found: Evaluation, swept: SteeringSweep | None, html: Path | None, as_json: bool) -> None:
    if html is not None:
        from guardrail.report.evaluation import page

        page(found, swept).write(html)
    if as_json:
        print_json(found.as_json() | ({"steering": swept.as_json()} if swept else {}))
        return
    from guardrail.cli.evaluate.output import print_evaluation, print_sweep

    print_evaluation(found)
    if swept:
        print_sweep(swept)
    if html is not None:
        typer.echo(f"\n{html}: written")


def _shadow(log: Path, labels: Path | None, html: Path | None, as_json: bool) -> None:
    """Needs neither a model nor torch."""
    from guardrail.audit import read
    from guardrail.cli.evaluate.output import print_shadow
    from guardrail.evaluation.shadow import read_labels, shadowed

    found = shadowed(read(log), read_labels(labels) if labels else None)
    if html is not None:
        from guardrail.report.shadow import page

        page(found, log.name).write(html)
    if as_json:
        print_json(found.as_json())
    else:
        print_shadow(found)
