"""The options of `guardrail serve`, and the server's settings that they make."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Option

from guardrail.cli.options import ModelOptions
from guardrail.cli.panels import Panel
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.serve.settings import ServerSettings

BATCHING = "transformers-batching"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModelOptions(ModelOptions):
    """The model of a server, which many ask at once."""

    engine: Annotated[
        str,
        Option(
            help="Engine that reads activations: transformers-batching (requests share passes), or "
            "transformers (one request after another, for models that cannot be batched)."
        ),
    ] = BATCHING


class Blocks(StrEnum):
    """What a block is for clients."""

    REFUSAL = "refusal"
    ERROR = "error"


class LogFormat(StrEnum):
    """What a line of the log looks like."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressOptions:
    """Where the server listens, and who may ask."""

    panel: ClassVar = Panel.SERVER

    host: Annotated[str, Option(help="Address to listen on. 0.0.0.0: all of them.")] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on. 0 chooses a free one.")] = 8000
    keys: Annotated[Path | None, Option(help="YAML file with the hashes of API keys.")] = None
    without_keys: Annotated[
        bool,
        Option("--without-keys", help="Let everyone who reaches this machine ask the model, without a key."),
    ] = False
    allow_origin: Annotated[
        list[str] | None, Option(help="Web page (https://...) whose scripts may call the server, or *.")
    ] = None
    allow_host: Annotated[
        list[str] | None, Option(help="Other name of this machine that clients without API keys may use.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What the server answers, and its limits."""

    panel: ClassVar = Panel.SERVER

    names: Annotated[
        list[str] | None,
        Option("--name", help="Name of the model in requests. Repeatable."),
    ] = None
    blocks: Annotated[
        Blocks,
        Option(
            help="How a block is returned: as a reply with the policy's message, or as an error (HTTP 400)."
        ),
    ] = Blocks.REFUSAL
    queue: Annotated[int, Option(min=1, help="Maximum requests in the server, running or waiting.")] = 64
    deadline: Annotated[float, Option(min=0.1, help="Seconds within which a request must be answered.")] = (
        300.0
    )
    grace: Annotated[
        float, Option(min=0.1, help="Seconds that running requests get to finish when the server stops.")
    ] = 30.0
    max_body: Annotated[int, Option(min=1, help="Maximum size of a request, in bytes.")] = 4 << 20
    max_tokens: Annotated[int, Option(min=1, help="Maximum tokens that a request may ask for.")] = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsOptions:
    """What operators see."""

    panel: ClassVar = Panel.SERVER

    log_format: Annotated[
        LogFormat, Option(help="Format of the log on stderr: one line per request, without its text.")
    ] = LogFormat.TEXT
    near: Annotated[
        Path | None,
        Option(help="Benign prompts (those of `calibrate --benign`) that the page /look compares with."),
    ] = None
    open_metrics: Annotated[
        bool, Option("--open-metrics", help="Serve /metrics without an API key, also to other machines.")
    ] = False


def server_settings(
    model: ModelOptions, address: AddressOptions, answers: AnswerOptions, operations: OperationsOptions
) -> ServerSettings:
    """The settings of a server. Raises ConfigError for a server that everybody could use by mistake."""
    from guardrail.serve.keys import load_keys
    from guardrail.serve.settings import ServerSettings

    _check(address, answers)
    name, *aliases = answers.names or [_name(model.name)]
    chosen = ServerSettings(
        model=name,
        aliases=tuple(aliases),
        host=address.host,
        port=address.port,
        blocks=answers.blocks.value,
        keys=load_keys(address.keys) if address.keys else (),
        keys_file=address.keys,
        open_metrics=operations.open_metrics,
        near=_near(operations.near),
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


def _near(path: Path | None) -> Path | None:
    """The file of benign prompts. Raises ConfigError if it cannot be read, before a model is loaded."""
    if path is not None:
        from guardrail.pipeline.look.prompts import prompts_in

        prompts_in(path)
    return path


def _check(address: AddressOptions, answers: AnswerOptions) -> None:
    """Raises ConfigError."""
    if address.keys and address.without_keys:
        raise ConfigError("--without-keys lets everyone in, and --keys does not: leave out one of them")
    if not all(name.strip() for name in answers.names or ()):
        raise ConfigError("--name: a model without a name cannot be asked for")
    for origin in address.allow_origin or ():
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"--allow-origin: `{origin}` is not an origin: scheme, host and port only, "
                "such as https://example.com or http://localhost:3000, or * for all"
            )


def _name(model: str) -> str:
    """What requests call a model: its hub id, or the name of its file or folder."""
    path = Path(model)
    return path.resolve().name.removesuffix(".gguf") if path.exists() else model
