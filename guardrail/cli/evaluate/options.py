"""The options of `guardrail evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from typer import Option

from guardrail.cli.options import SystemOption
from guardrail.cli.panels import Panel
from guardrail.cli.places import check_file
from guardrail.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions(SystemOption):
    """What is evaluated, and on which prompts."""

    panel: ClassVar = Panel.DATA

    vectors: Annotated[
        str | None, Option(help="Vector file, or `demo`. Default: the file that the policies name.")
    ] = None
    calibration: Annotated[
        str | None, Option(help="Calibration file, or `demo`. Default: the file that the policies name.")
    ] = None
    data: Annotated[Path | None, Option(help="Labelled prompts (JSON Lines).")] = None
    layer: Annotated[int | None, Option(min=1, help="One layer for all traits.")] = None
    neutral: Annotated[Path | None, Option(help="Neutral prompts (JSON Lines) for null directions.")] = None
    seen: Annotated[list[Path] | None, Option(help="Prompts used before (JSON Lines), to find leaks.")] = None
    full: Annotated[bool, Option("--full", help="Evaluate the whole built-in set, which takes minutes.")] = (
        False
    )
    replies: Annotated[
        int | None,
        Option(min=2, help="Replies to each prompt of the built-in set. Default: 2, with --full 8."),
    ] = None

    own_replies: Annotated[
        int | None,
        Option(
            min=1,
            help="Replies of the model itself to each prompt of --data, which the judge scores: their "
            "correlation with the projections, overall and within conditions.",
        ),
    ] = None
    work: Annotated[
        Path | None, Option(help="Folder of --own-replies, to resume from. Default: next to --data.")
    ] = None

    def __post_init__(self) -> None:
        if self.data is None and (self.own_replies is not None or self.work is not None):
            raise ConfigError("--own-replies and --work belong to --data; the built-in set has its --replies")
        if self.data is not None and self.full:
            raise ConfigError("--full belongs to the built-in set; --data is always evaluated whole")
        if self.data is None and (self.neutral or self.seen or self.system is not None):
            raise ConfigError("--neutral, --seen and --system belong to --data")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """What the results have to reach."""

    panel: ClassVar = Panel.CHECKS

    min_auroc: Annotated[
        float | None, Option(min=0, max=1, help="Gate: minimum for the lower end of each AUROC's interval.")
    ] = None
    max_fpr: Annotated[
        float | None, Option(min=0, max=1, help="Gate: maximum for the upper end of each FPR's interval.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringOptions:
    """The sweep over ways of steering."""

    panel: ClassVar = Panel.METHOD

    steering: Annotated[bool, Option("--steering", help="Also compare ways of steering.")] = False
    trait: Annotated[list[str] | None, Option(help="Steer only these traits.")] = None
    questions: Annotated[int, Option(min=1, help="Replies for each way of steering.")] = 20
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens per reply.")] = 256
    definition: Annotated[list[str] | None, Option(help="Trait definitions: names or files.")] = None
    capability: Annotated[Path | None, Option(help="Multiple-choice questions (JSON Lines).")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOptions:
    """An audit log, evaluated in place of a model."""

    panel: ClassVar = Panel.DATA

    shadow: Annotated[Path | None, Option(help="Audit log whose shadow policies are evaluated.")] = None
    labels: Annotated[Path | None, Option(help="Labels of audit records (JSON Lines), for --shadow.")] = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.shadow is None:
            raise ConfigError("--labels are labels of the records of --shadow")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOption:
    """The report that is written."""

    html: Annotated[Path | None, Option(help="File for a report (HTML).")] = None

    def check(self) -> None:
        """Raises ConfigError if the report cannot be made or written, before anything long begins."""
        if self.html is not None:
            from guardrail.report import check_installed

            check_installed()
            check_file(self.html)

    def tell(self, as_json: bool) -> None:
        """Say that it was written; JSON stays alone."""
        if self.html is not None and not as_json:
            typer.echo(f"\n{self.html}: written")
