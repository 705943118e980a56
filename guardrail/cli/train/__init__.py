"""`guardrail train`: what finetuning did to a model, and how to keep its character."""

from __future__ import annotations

import typer

from guardrail.cli.options import add_group
from guardrail.cli.train.finetune import finetune
from guardrail.cli.train.gate import gate
from guardrail.cli.train.shift import shift
from guardrail.plugins.hookspecs import hookimpl


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    add_group(
        app,
        "train",
        "Finetune a model and keep its character; measure what finetuning changed.",
        finetune=finetune,
        shift=shift,
        gate=gate,
    )
