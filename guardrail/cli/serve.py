"""`guardrail serve`: an OpenAI-compatible server in front of a guarded model."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import print_json
from guardrail.cli.models import WATCH_S, open_guard
from guardrail.cli.options import OutputOptions, PoliciesOption, takes_options
from guardrail.cli.serve_options import (
    AddressOptions,
    AnswerOptions,
    OperationsOptions,
    ServedModelOptions,
    server_settings,
)
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail import Guard
    from guardrail.policy.rules import Rule
    from guardrail.serve.settings import ServerSettings

NEEDED = ("fastapi", "jinja2", "prometheus_client", "psutil", "uvicorn")

NO_AUDIT = (
    "no audit log: nobody can look up what was decided; `audit: {jsonl: FILE}` in the policy file keeps one"
)


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve")(serve)


@takes_options
def serve(
    model: ServedModelOptions,
    policies: PoliciesOption,
    address: AddressOptions,
    answers: AnswerOptions,
    operations: OperationsOptions,
    *,
    output: OutputOptions,
) -> None:
    """Serve the guarded model to OpenAI clients: point their base URL at it.

    Policies are reloaded when their files change. Ctrl-C or SIGTERM finishes the requests that run.
    """
    check_installed()
    from guardrail.serve.dashboard.live import Unlogged
    from guardrail.serve.logs import logging_to_stderr
    from guardrail.serve.metrics import Metrics
    from guardrail.serve.server import bound

    chosen = server_settings(model, address, answers, operations)
    with (
        logging_to_stderr(operations.log_format.value),
        bound(chosen) as socket,
        open_guard(model, policies.policies, WATCH_S, [Metrics(), Unlogged()]) as guard,
    ):
        from guardrail.serve.app import create_app
        from guardrail.serve.server import Server, url

        where = url(socket)
        server = Server(
            create_app(guard, chosen), lambda: _begun(where, guard, chosen, model.engine, output.as_json)
        )
        try:
            server.run([socket])
        except KeyboardInterrupt:
            # a second one; the log has said so
            raise typer.Exit(1) from None


def check_installed() -> None:
    """Raises ConfigError if a package of the extra `serve` is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"the server needs {' and '.join(missing)}: pip install 'persona-guardrail[serve]'")


def _begun(where: str, guard: Guard, chosen: ServerSettings, engine: str, as_json: bool) -> None:
    if as_json:
        print_json(_start_row(where, guard, chosen) | {"engine": engine})
    else:
        typer.echo(_start_text(where, guard, chosen))
    # whoever started it may read this through a pipe, and nothing more will come
    sys.stdout.flush()


def _start_row(where: str, guard: Guard, chosen: ServerSettings) -> dict[str, object]:
    plan = guard.active.plan
    return {
        "url": f"{where}/v1",
        "model": chosen.model,
        "names": chosen.names,
        "policies": [rule.id for rule in (*plan.rules, *plan.reply_rules)],
        "policy_sha256": plan.policy_sha256,
        "vectors_sha256": plan.vectors_sha256,
        "calibration_sha256": plan.calibration_sha256,
        "fail_open": [rule.id for rule in (*plan.rules, *plan.reply_rules) if rule.fails_open],
        "audit": _logs(guard),
        "warnings": plan.warnings,
        "keys": [key.name for key in chosen.keys],
    }


def _start_text(where: str, guard: Guard, chosen: ServerSettings) -> str:
    plan = guard.active.plan
    rules = [*plan.rules, *plan.reply_rules]
    names, logs = [key.name for key in chosen.keys], _logs(guard)
    return "\n".join(
        [
            f"serving {' or '.join(chosen.names)} at {where}/v1; Ctrl-C ends it",
            f"policies (sha256 {plan.policy_sha256[:12]}, vectors {plan.vectors_sha256[:12]}):",
            *(f"  {rule.id}: {_policy(rule)}" for rule in rules),
            f"audit log: {', '.join(logs)}" if logs else NO_AUDIT,
            f"API keys: {', '.join(names)}" if names else f"no API keys: {_everyone(chosen)}",
        ]
    )


def _logs(guard: Guard) -> list[str]:
    """Who keeps audit records. The metrics and the dashboard only count them."""
    return [name for name in guard.audit.sinks if name not in ("metrics", "dashboard")]


def _policy(rule: Rule) -> str:
    mode = "" if rule.mode == "enforce" else f", {rule.mode}"
    return f"{rule.action}{mode}{', lets prompts pass on errors' if rule.fails_open else ''}"


def _everyone(chosen: ServerSettings) -> str:
    if chosen.on_loopback:
        return "every program on this machine may ask, reload the policies and read the metrics"
    more = " and read the metrics" if chosen.open_metrics else ""
    return f"everyone who reaches this machine may ask{more}"
