"""`guardrail keys new`: API keys for `guardrail serve`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from guardrail.cli.console import note, print_json
from guardrail.cli.options import OutputOptions, add_group, takes_options
from guardrail.plugins.hookspecs import hookimpl


class Right(StrEnum):
    """What a key is for."""

    ASK = "ask"
    REVIEW = "review"
    ADMIN = "admin"
    METRICS = "metrics"


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    add_group(app, "keys", "Create API keys for `guardrail serve`.", new=new)


@takes_options
def new(
    name: Annotated[str, Argument(help="Name of the key, which logs show.")],
    keys: Annotated[Path, Option("--keys", help="YAML file that the key's hash is added to.")],
    tags: Annotated[
        str | None, Option(help="Comma-separated tags of all its requests, which can then name none.")
    ] = None,
    right: Annotated[
        list[Right] | None,
        Option(help="What it is for: ask (default), review tickets, admin, metrics. Repeatable."),
    ] = None,
    *,
    output: OutputOptions,
) -> None:
    """Create an API key and print it, once. The file gets its hash."""
    from guardrail.cli.serve import check_installed

    check_installed()
    from guardrail.serve.keys import add_key

    given = None if tags is None else [tag.strip() for tag in tags.split(",") if tag.strip()]
    key = add_key(keys, name, given, [one.value for one in right or [Right.ASK]])
    if output.as_json:
        print_json({"name": name, "key": key, "file": str(keys)})
    else:
        typer.echo(key)
        note(
            f"its hash was added to {keys}; the key itself is not kept anywhere. "
            "A server that runs with this file accepts the key in a moment"
        )
