"""`guardrail interpret`: which layers, heads and positions of a model carry a persona."""

from __future__ import annotations

import typer

from guardrail.cli.interpret.accuracy import accuracy
from guardrail.cli.interpret.heads import heads
from guardrail.cli.interpret.lens import lens
from guardrail.cli.interpret.patch import patch
from guardrail.cli.interpret.recommend import recommend
from guardrail.cli.options import add_group
from guardrail.plugins.hookspecs import hookimpl


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    add_group(
        app,
        "interpret",
        "Find the layers, heads and positions of a model that carry a persona.",
        patch=patch,
        heads=heads,
        accuracy=accuracy,
        lens=lens,
        recommend=recommend,
    )
