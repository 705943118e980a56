"""`guardrail plugins list`: what is built in, enabled and installed. GUARDRAIL_PLUGINS enables by name."""

from __future__ import annotations

import typer

from guardrail.cli.console import JsonFlag, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the verb, and the verbs of the plugins that the environment enables."""
    group = typer.Typer(help="Show plugins: built in, enabled, or merely installed.", no_args_is_help=True)
    group.command("list")(show)
    group.callback()(_group)
    app.add_typer(group, name="plugins")
    _add_verbs(app)


def _add_verbs(app: typer.Typer) -> None:
    from guardrail.plugins.registry import names_in_environment

    if names_in_environment():
        from guardrail.plugins.manager import Plugins

        Plugins.from_environment().cli(app)


def _group() -> None:
    # with a callback typer keeps `list` as a subcommand although it is the only one
    return


def show(as_json: JsonFlag = False) -> None:
    """List all plugins. Installed is not enabled: a policy file's `plugins:` enables."""
    from guardrail.plugins.manager import Plugins

    rows = Plugins.from_environment().listing()
    if as_json:
        print_json(rows)
    else:
        columns = ("plugin", "version", "state", "hooks")
        print_table(columns, [(r.name, r.version, r.state, " ".join(r.hooks)) for r in rows])
