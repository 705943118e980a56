"""`guardrail plugins list`: what is built in, enabled and installed. GUARDRAIL_PLUGINS enables by name."""

from __future__ import annotations

import typer

from guardrail.cli.console import print_json, print_table
from guardrail.cli.options import OutputOptions, add_group, takes_options
from guardrail.plugins.hookspecs import hookimpl


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    add_group(app, "plugins", "List plugins: built in, enabled, or installed but not enabled.", list=show)


@takes_options
def show(output: OutputOptions) -> None:
    """List all plugins. An installed plugin runs only if it is enabled, by `plugins:` in a policy file."""
    from guardrail.cli import verbs
    from guardrail.plugins.manager import Plugins
    from guardrail.plugins.registry import names_in_environment

    rows = Plugins([*verbs(), *names_in_environment()]).listing()
    if output.as_json:
        print_json(rows)
    else:
        columns = ("plugin", "version", "state", "hooks")
        print_table(columns, [(r.name, r.version, r.state, " ".join(r.hooks)) for r in rows])
