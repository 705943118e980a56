"""The options of `guardrail data screen`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Argument, Option

from guardrail.cli.options import settings
from guardrail.cli.panels import Panel
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.train.screening import ScreeningSettings


class Form(StrEnum):
    """The forms of `guardrail.train.screening.meter`."""

    EXACT = "exact"
    LAST_PROMPT = "last-prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """The data, and what becomes of it."""

    panel: ClassVar = Panel.DATA

    data: Annotated[
        list[Path],
        Argument(help="Data: .jsonl, .parquet, or a folder that `datasets` saved. Several are ranked."),
    ]
    out: Annotated[Path, Option(help="Output folder, with a subfolder for each data set.")] = Path("screened")
    work: Annotated[
        Path | None, Option(help="Folder for intermediate results, to resume from. Default: --out/work.")
    ] = None
    source: Annotated[
        str | None, Option(help="Key that says where a row comes from. Default: `source`, or `dataset`.")
    ] = None
    longest: Annotated[
        int | None,
        Option("--max-tokens", min=1, help="Maximum tokens of a sample. Default: what the model takes."),
    ] = None
    strict: Annotated[
        bool, Option("--strict", help="Treat a row that cannot be screened as an error, before any work.")
    ] = False

    @property
    def folder(self) -> Path:
        """The folder that keeps intermediate results."""
        return self.work or self.out / "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """What is measured, and how."""

    panel: ClassVar = Panel.METHOD

    vectors: Annotated[str | None, Option(help="Vector file, or `demo`.")] = None
    trait: Annotated[list[str] | None, Option(help="Trait to screen for. May be repeated. Default: all.")] = (
        None
    )
    layer: Annotated[
        int | None, Option(min=1, help="One layer for all traits. Default: those that the vector file chose.")
    ] = None
    form: Annotated[
        Form,
        Option(
            help="exact: compare with the model's own greedy reply. last-prompt: with the prompt's last "
            "token, which needs no reply and is many times cheaper."
        ),
    ] = Form.EXACT
    subset: Annotated[
        int | None,
        Option(
            min=2, help="Measure only this many random rows, for the mean of the data. No row is rejected."
        ),
    ] = None
    seed: Annotated[int, Option(min=0, help="Seed of --subset.")] = 0
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens of the model's own replies.")] = 256
    batch: Annotated[int, Option(min=1, help="Batch size.")] = 64
    allow_model_mismatch: Annotated[
        bool,
        Option("--allow-model-mismatch", help="Accept a model that is a finetune of the vectors' model."),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdOptions:
    """The difference above which rows are rejected."""

    panel: ClassVar = Panel.CHECKS

    clean: Annotated[
        Path | None,
        Option(help="Data like it that you trust, for the thresholds. Without it no row is rejected."),
    ] = None
    percentile: Annotated[
        float | None,
        Option(
            min=50, max=100, help="Percentile of the clean rows above which rows are rejected. Default: 95."
        ),
    ] = None
    conformal: Annotated[
        float | None,
        Option(
            min=0, max=1, help="Maximum expected share of clean rows to reject, in place of a percentile."
        ),
    ] = None
    thresholds: Annotated[
        Path | None, Option(help="thresholds.json of an earlier run, in place of --clean.")
    ] = None
    definition: Annotated[
        list[str] | None,
        Option(help="Trait definition for --judge: a name or a file. Default: the built-in ones."),
    ] = None

    def __post_init__(self) -> None:
        if self.clean is not None and self.thresholds is not None:
            raise ConfigError("--clean and --thresholds: the thresholds come from one of them")
        if self.percentile is not None and self.conformal is not None:
            raise ConfigError("--percentile and --conformal are two rules; choose one")
        if self.clean is None and (self.percentile is not None or self.conformal is not None):
            raise ConfigError("--percentile and --conformal need clean data: give --clean")

    @property
    def share(self) -> float:
        """The share of clean rows that a trait's threshold leaves above it."""
        if self.conformal is not None:
            return self.conformal
        return 1 - (95 if self.percentile is None else self.percentile) / 100


def screening_settings(data: DataOptions, measure: MeasureOptions) -> ScreeningSettings:
    """How samples are measured."""
    from guardrail.train.screening import ScreeningSettings

    return settings(ScreeningSettings, data, measure, form=measure.form.value)
