"""Options that several verbs share, and how a command takes options: as frozen dataclasses.

A field of such a dataclass carries `Annotated[..., Option(...)]`. `takes_options` shows typer a function
with one parameter per field, and hands the command the dataclasses. They raise ConfigError for values that
make no sense, before the command begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, getdoc, signature
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

import typer
from typer import Argument, Option

from guardrail.cli.panels import Panel, grouped
from guardrail.errors import ConfigError

T = TypeVar("T")
DEMO = "demo"
ENGINE = "transformers"
PLAIN = "builtin:plain"
OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
POLICIES = "Policy file (YAML), the name of a shipped one (chatbot, observe, strict), or pack:NAME."
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def policy_file(name: str) -> Path:
    """The policy file that the command line names: a path, or the name of a shipped one."""
    from guardrail.policy.loading import located

    return Path(str(located(name)))


class Dtype(StrEnum):
    """The types that weights can be loaded in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Quantize(StrEnum):
    """What bitsandbytes makes of weights while they are loaded."""

    FOUR = "4bit"
    EIGHT = "8bit"


class DeviceMap(StrEnum):
    """How accelerate spreads weights."""

    AUTO = "auto"
    BALANCED = "balanced"
    BALANCED_LOW_0 = "balanced_low_0"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model is loaded, where and how."""

    panel: ClassVar = Panel.MODEL

    name: Annotated[
        str, Option("--model", help="Hub id, folder, GGUF file, or `demo`, the built-in model.")
    ] = DEMO
    device: Annotated[str, Option(help="Device: auto (CUDA if available), cpu, cuda or cuda:N.")] = "auto"
    dtype: Annotated[
        Dtype,
        Option(
            help="Type of the weights. auto: that of the model's files, but float32 on a CPU for commands "
            "that calibrate, evaluate or extract."
        ),
    ] = Dtype.AUTO
    quantize: Annotated[
        Quantize | None, Option(help="Quantise the weights while loading, with bitsandbytes.")
    ] = None
    device_map: Annotated[
        DeviceMap | None,
        Option(
            help="Spread the weights over the devices of this machine, with accelerate. Not with --device."
        ),
    ] = None
    chat_template: Annotated[str | None, Option(help=f"Chat template: `{PLAIN}` or a Jinja file.")] = None
    engine: Annotated[str, Option(help="Engine that reads activations.")] = ENGINE

    def __post_init__(self) -> None:
        if not DEVICE.fullmatch(self.device):
            raise ConfigError(f"unknown device `{self.device}`; use auto, cpu, cuda or cuda:N")
        if self.device_map and self.device != "auto":
            raise ConfigError("--device-map chooses the devices itself; leave out --device")
        template = self.chat_template
        if template not in (None, PLAIN) and "{" not in template and not Path(template).is_file():
            raise ConfigError(f"--chat-template: there is no file {template}; `{PLAIN}` is built in")


class Runners(StrEnum):
    """Where batches are computed."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """Where batches are computed. The results are the same."""

    panel: ClassVar = Panel.MODEL

    runner: Annotated[
        Runners,
        Option(help="Compute batches here, or on workers of a Ray cluster (RAY_ADDRESS, or this machine)."),
    ] = Runners.LOCAL
    workers: Annotated[int, Option(min=1, help="Workers of --runner ray, each with a copy of the model.")] = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesOption:
    """The policy file."""

    policies: Annotated[Path | None, Option(parser=policy_file, metavar="FILE", help=POLICIES)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """How results are printed."""

    as_json: Annotated[bool, Option("--json", help="Print JSON instead of text.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOption:
    """The system message of prompts that have none."""

    system: Annotated[
        str | None,
        Option(help="System message to prepend to every prompt. Prompts that have one are refused."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions(SystemOption):
    """Prompts on the command line, and prompts in a file."""

    prompts: Annotated[list[str] | None, Argument(help="Prompts. Each is one user message.")] = None
    file: Annotated[
        Path | None,
        Option("--input", help='JSON Lines: strings or {"messages": [...]}. - is standard input.'),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """An OpenAI-compatible endpoint."""

    base_url: Annotated[str, Option(help="URL of an OpenAI-compatible endpoint.")] = OPENAI_URL
    api_key_env: Annotated[str, Option(help="Environment variable that holds the API key.")] = OPENAI_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions(EndpointOptions):
    """Who scores replies."""

    panel: ClassVar = Panel.JUDGE

    judge: Annotated[
        str | None,
        Option(
            help="Judge: openai:MODEL, local:MODEL, python:FILE (its function `score`), refusal-rule, demo, "
            "or a plugin's."
        ),
    ] = None
    requests_per_minute: Annotated[
        float | None, Option(min=0.01, help="Maximum requests to the judge per minute.")
    ] = None
    concurrency: Annotated[int, Option(min=1, help="Maximum requests to the judge at the same time.")] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintOption:
    """What stands in for a model."""

    panel: ClassVar = Panel.MODEL

    fingerprint: Annotated[
        Path | None, Option(help="JSON file with the model's fingerprint; no model is loaded then.")
    ] = None


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options. Other parameters stay as they are."""
    hints = get_type_hints(command, include_extras=True)
    parameters = list(signature(command).parameters.values())
    shown = grouped([one for parameter in parameters for one in _shown(parameter, hints[parameter.name])])

    @wraps(command)
    def flat(**values: Any) -> None:
        command(**{p.name: _built(hints[p.name], p.name, values) for p in parameters})

    flat.__signature__ = Signature(shown)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    flat.__doc__ = _unwrapped(getdoc(command) or "")
    return flat


def _unwrapped(text: str) -> str:
    """Typer keeps the line breaks of all paragraphs but the first, wherever the terminal ends."""
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in text.split("\n\n"))


def settings(kind: type[T], *options: object, **others: Any) -> T:
    """Settings of this kind, with the values of those options that have the same names."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    same = {n: getattr(o, n) for o in options for n in names if n not in others and hasattr(o, n)}
    return kind(**same, **others)


def add_group(app: typer.Typer, name: str, help: str, **commands: Callable[..., None]) -> None:
    """Add a verb that has subcommands. Names end in an underscore if they are keywords of Python."""
    group = typer.Typer(help=help, no_args_is_help=True)
    # without a callback typer drops the name of a subcommand that has no siblings
    group.callback()(lambda: None)
    for title, command in commands.items():
        group.command(title.rstrip("_"))(command)
    app.add_typer(group, name=name)


def _shown(parameter: Parameter, hint: Any) -> Iterator[tuple[Parameter, Panel | None]]:
    """The parameters that typer sees in place of one parameter of a command, and where help shows them."""
    if not is_dataclass(hint):
        yield parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY), None
        return
    hints, panel = get_type_hints(hint, include_extras=True), getattr(hint, "panel", None)
    for field in fields(hint):
        default, kind = _default(field), Parameter.KEYWORD_ONLY
        yield Parameter(field.name, kind, default=default, annotation=hints[field.name]), panel


def _default(field: Field[Any]) -> Any:
    return Parameter.empty if field.default is MISSING else field.default


def _built(hint: Any, name: str, values: Mapping[str, Any]) -> Any:
    if not is_dataclass(hint):
        return values[name]
    return hint(**{field.name: values[field.name] for field in fields(hint)})  # type: ignore[operator]
