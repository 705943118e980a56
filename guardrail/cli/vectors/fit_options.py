"""The options of `guardrail vectors fit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Option

from guardrail.cli.options import SystemOption
from guardrail.cli.panels import Panel
from guardrail.cli.vectors.options import check_new, layer_list
from guardrail.errors import ConfigError
from guardrail.files.problems import suggest

if TYPE_CHECKING:
    from guardrail.extract.fit.csv_file import Columns
    from guardrail.types import Position

METHODS = ("difference", "lda", "logistic")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledOptions(SystemOption):
    """The labelled prompts."""

    panel: ClassVar = Panel.DATA

    data: Annotated[
        list[Path],
        Option(
            help='Labelled prompts: JSON Lines, {"prompt": ..., "labels": {"harm": 1}, "source": ...} with '
            "`messages` in place of `prompt` if wanted, or .csv. May be repeated."
        ),
    ]
    validation: Annotated[
        Path | None,
        Option(help="Prompts to choose by, in place of parts held out of --data. None may be in both."),
    ] = None
    trait: Annotated[
        list[str] | None, Option(help="Label to fit. May be repeated. Default: every label.")
    ] = None
    prompt_column: Annotated[str, Option(help="CSV column of the prompts.")] = "prompt"
    label_column: Annotated[
        list[str] | None,
        Option(help="CSV column of a label (1, 0 or empty), or TRAIT=COLUMN. May be repeated."),
    ] = None
    source_column: Annotated[str | None, Option(help="CSV column of the sources.")] = None
    category_column: Annotated[
        str | None, Option(help="CSV column of the kinds of prompts within a source.")
    ] = None
    group_column: Annotated[
        str | None, Option(help="CSV column of groups; prompts of one group are held out together.")
    ] = None
    split_column: Annotated[str | None, Option(help="CSV column with train or validation.")] = None
    max_prompts: Annotated[
        int | None, Option(min=1, help="Maximum number of prompts, drawn evenly from sources and labels.")
    ] = None
    skip_invalid: Annotated[bool, Option("--skip-invalid", help="Leave out unreadable prompts.")] = False

    def columns(self) -> Columns:
        """Which columns of a CSV file hold what."""
        from guardrail.extract.fit.csv_file import Columns

        pairs = [name.partition("=") for name in self.label_column or ()]
        return Columns(
            prompt=self.prompt_column,
            labels={trait: column or trait for trait, _, column in pairs},
            source=self.source_column,
            category=self.category_column,
            group=self.group_column,
            split=self.split_column,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What is tried."""

    panel: ClassVar = Panel.METHOD

    method: Annotated[
        list[str] | None,
        Option(help=f"Extraction method to try. May be repeated. Default: {', '.join(METHODS)}."),
    ] = None
    positions: Annotated[
        str | None,
        Option(help="Positions to try, with commas: last, user_mean, tool_mean, prompt_mean. Default: all."),
    ] = None
    layers: Annotated[str | None, Option(help="Layers to try, such as 8-24 or 4,8,12. Default: all.")] = None
    max_sites: Annotated[int, Option(min=1, max=6, help="Most places that a probe may sum over.")] = 3
    seed: Annotated[int, Option(min=0, help="Random seed of the parts that are held out.")] = 0
    batch: Annotated[int, Option("--batch-size", min=1, help="Batch size for reading prompts.")] = 64

    def __post_init__(self) -> None:
        self.chosen_positions()
        self.chosen_layers(None)

    def chosen_layers(self, count: int | None) -> tuple[int, ...] | None:
        """None for all. Raises ConfigError for layers that a model of `count` layers does not have."""
        if self.layers is None:
            return None
        found = layer_list(self.layers)
        if count is not None and (found[0] < 1 or found[-1] > count):
            raise ConfigError(f"--layers {self.layers}: the model has the layers 1 to {count}")
        return found

    def chosen_positions(self) -> tuple[Position, ...]:
        """Raises ConfigError for a position that does not exist."""
        from guardrail.types import POSITIONS

        names = [name.strip() for name in (self.positions or ",".join(POSITIONS)).split(",")]
        for name in names:
            if name not in POSITIONS:
                known = ", ".join(POSITIONS)
                raise ConfigError(
                    f"--positions: no position `{name}`{suggest(name, POSITIONS)}; there are {known}"
                )
        return tuple(position for position in POSITIONS if position in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedOptions:
    """The files that are written."""

    out: Annotated[Path, Option(help="Vector file to write (.safetensors).")]
    work: Annotated[
        Path | None,
        Option(
            help="Folder for the states that were read, to fit again from. Default: fit-states next to --out."
        ),
    ] = None
    policy: Annotated[
        Path | None, Option(help="Policy file to write: one policy that blocks for each trait.")
    ] = None
    benign_out: Annotated[
        Path | None,
        Option(
            help="File for harmless prompts that are set aside, for `guardrail calibrate --benign`: 30 % of "
            "them. Nothing is fitted on or chosen by them."
        ),
    ] = None
    fpr: Annotated[float, Option(help="With --policy: false-positive rate of each policy.")] = 0.01
    force: Annotated[bool, Option("--force", help="Replace files that exist.")] = False

    def __post_init__(self) -> None:
        for path in (self.out, self.policy, self.benign_out):
            if path is not None:
                check_new(path, self.force)
        if not 0 < self.fpr < 1:
            raise ConfigError(f"--fpr must be between 0 and 1, not {self.fpr}")

    @property
    def folder(self) -> Path:
        """The folder that keeps states."""
        return self.work or self.out.with_name("fit-states")
