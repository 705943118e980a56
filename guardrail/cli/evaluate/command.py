"""`guardrail evaluate`: how well vectors detect and steer, and what shadow policies would have done.

Exit codes: 0; 1 if a gate is not passed; 2 for data or configuration that cannot be used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import print_json
from guardrail.cli.evaluate.options import (
    DataOptions,
    GateOptions,
    PageOption,
    ShadowOptions,
    SteeringOptions,
)
from guardrail.cli.models import sleep_while_waiting
from guardrail.cli.options import (
    JudgeOptions,
    ModelOptions,
    OutputOptions,
    PoliciesOption,
    RunnerOptions,
    takes_options,
)
from guardrail.cli.progress import doing
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.evaluation.results import Evaluation
    from guardrail.evaluation.sweep import SteeringSweep


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate")(evaluate)


@takes_options
def evaluate(
    model: ModelOptions,
    policies: PoliciesOption,
    data: DataOptions,
    gates: GateOptions,
    steering: SteeringOptions,
    judge: JudgeOptions,
    shadow: ShadowOptions,
    page: PageOption,
    spread: RunnerOptions,
    output: OutputOptions,
) -> None:
    """Evaluate how well the vectors detect. Without --data, `demo` is evaluated on its built-in held-out set.

    A gate is passed if the whole interval meets the demand. The exit code is 1 unless all gates are passed.
    """
    from guardrail.cli.evaluate.inputs import read_inputs
    from guardrail.cli.evaluate.own_replies import Replying
    from guardrail.cli.evaluate.steered import Steered

    page.check()
    if shadow.shadow is not None:
        return _shadow(shadow.shadow, shadow.labels, page.html, output.as_json)
    sleep_while_waiting()
    inputs = read_inputs(model, policies.policies, data, gates)
    steered = Steered.of(inputs, steering, judge) if steering.steering else None
    replying = Replying.of(inputs, steering, judge) if data.own_replies is not None else None
    opened = inputs.opened(spread)
    if replying is not None:
        opened = replying.expressed(opened)
    with doing("evaluating ..."):
        found = opened.evaluation(gates)
    swept = steered.swept(opened) if steered else None
    _publish(found, swept, page.html, output.as_json)
    if any(gate.verdict != "passed" for gate in found.gates):
        raise typer.Exit(1)
    return None


def _publish(found: Evaluation, swept: SteeringSweep | None, html: Path | None, as_json: bool) -> None:
    if html is not None:
        _write(found, swept, html)
    if as_json:
        print_json(found.as_json() | ({"steering": swept.as_json()} if swept else {}))
        return
    from guardrail.cli.evaluate.output import print_evaluation, print_sweep

    print_evaluation(found)
    if swept:
        print_sweep(swept)
    if html is not None:
        typer.echo(f"\n{html}: written")


def _write(found: Evaluation, swept: SteeringSweep | None, html: Path) -> None:
    from guardrail.report.evaluation import page

    page(found, swept).write(html)


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
        return print_json(found.as_json())
    return print_shadow(found)
