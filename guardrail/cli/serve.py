"""`guardrail serve`: an OpenAI-compatible server in front of a guarded model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.console import print_json
from guardrail.cli.models import WATCH_S, open_guard
from guardrail.cli.options import ModelOptions, OutputOptions, PoliciesOption, takes_options
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail import Guard
    from guardrail.serve.settings import ServerSettings


class LogFormat(StrEnum):
    """What a line of the log looks like."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressOptions:
    """Where the server listens, and who may ask."""

    host: Annotated[str, Option(help="Address to listen on. 0.0.0.0: all of them.")] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on. 0 chooses a free one.")] = 8000
    keys: Annotated[Path | None, Option(help="YAML file with the hashes of API keys.")] = None
    without_keys: Annotated[bool, Option("--without-keys", help="Serve other machines without API keys.")] = (
        False
    )
    allow_origin: Annotated[
        list[str] | None, Option(help="Web page (https://...) whose scripts may call the server, or *.")
    ] = None
    allow_host: Annotated[
        list[str] | None, Option(help="Other name of this machine that clients without API keys may use.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What the server answers, and its limits."""

    names: Annotated[list[str] | None, Option("--name", help="Name of the model in requests.")] = None
    blocks: Annotated[
        str,
        Option(help="What a block is: `refusal` (the policy's message as a reply) or `error` (HTTP 400)."),
    ] = "refusal"
    queue: Annotated[int, Option(min=1, help="Maximum requests in the server, running or waiting.")] = 64
    deadline: Annotated[float, Option(min=0.1, help="Seconds in which a request is answered.")] = 300.0
    grace: Annotated[float, Option(min=0.1, help="Seconds that requests get when the server stops.")] = 30.0
    max_body: Annotated[int, Option(min=1, help="Largest request, in bytes.")] = 4 << 20
    max_tokens: Annotated[int, Option(min=1, help="Longest reply that a request may ask for.")] = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsOptions:
    """What operators see."""

    log_format: Annotated[
        LogFormat, Option(help="Form of the log on stderr: one line for each request, without its text.")
    ] = LogFormat.TEXT
    open_metrics: Annotated[
        bool, Option("--open-metrics", help="Serve /metrics without an API key, even if there are keys.")
    ] = False


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve")(serve)


@takes_options
def serve(
    model: ModelOptions,
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
    from guardrail.serve.logs import logging_to_stderr
    from guardrail.serve.metrics import Metrics
    from guardrail.serve.server import bound

    chosen = _settings(model, address, answers, operations)
    with (
        logging_to_stderr(operations.log_format.value),
        bound(chosen) as socket,
        open_guard(model, policies.policies, WATCH_S, [Metrics()]) as guard,
    ):
        from guardrail.serve.app import create_app
        from guardrail.serve.server import Server, url

        where = url(socket)
        server = Server(create_app(guard, chosen), lambda: _print_start(where, guard, chosen, output.as_json))
        server.run([socket])


def check_installed() -> None:
    """Raises ConfigError if a package of the extra `serve` is missing."""
    if missing := [name for name in ("fastapi", "prometheus_client", "uvicorn") if find_spec(name) is None]:
        raise ConfigError(f"the server needs {' and '.join(missing)}: pip install 'persona-guardrail[serve]'")


def _settings(
    model: ModelOptions, address: AddressOptions, answers: AnswerOptions, operations: OperationsOptions
) -> ServerSettings:
    from guardrail.serve.keys import load_keys
    from guardrail.serve.settings import ServerSettings

    if answers.blocks not in ("refusal", "error"):
        raise ConfigError(f"--blocks: must be `refusal` or `error`, not `{answers.blocks}`")
    name, *aliases = answers.names or [Path(model.name).stem if "/" in model.name else model.name]
    chosen = ServerSettings(
        model=name,
        aliases=tuple(aliases),
        host=address.host,
        port=address.port,
        blocks=answers.blocks,
        keys=load_keys(address.keys) if address.keys else (),
        open_metrics=operations.open_metrics,
        origins=tuple(address.allow_origin or ()),
        hosts=tuple(address.allow_host or ()),
        queue=answers.queue,
        deadline_s=answers.deadline,
        grace_s=answers.grace,
        max_body=answers.max_body,
        max_tokens=answers.max_tokens,
    )
    if not (chosen.keys or chosen.on_loopback or address.without_keys):
        raise ConfigError(
            f"{chosen.host} can be reached from other machines: name API keys with --keys, "
            "or allow everyone with --without-keys"
        )
    return chosen


def _print_start(where: str, guard: Guard, chosen: ServerSettings, as_json: bool) -> None:
    plan = guard.active.plan
    if as_json:
        print_json(
            {
                "url": f"{where}/v1",
                "model": chosen.model,
                "policies": [rule.id for rule in plan.rules],
                "policy_sha256": plan.policy_sha256,
                "vectors_sha256": plan.vectors_sha256,
                "fail_open": plan.fail_open,
                "warnings": plan.warnings,
                "keys": len(chosen.keys),
            }
        )
    else:
        typer.echo(f"serving {chosen.model} at {where}/v1")
        typer.echo(
            f"policies: {', '.join(rule.id for rule in plan.rules)} (sha256 {plan.policy_sha256[:12]})"
        )
