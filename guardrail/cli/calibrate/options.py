"""The options of `guardrail calibrate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

from guardrail.cli.options import SystemOption
from guardrail.cli.panels import Panel
from guardrail.cli.places import check_file
from guardrail.errors import CalibrationError, ConfigError

SLICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions(SystemOption):
    """The benign prompts, and how they are used."""

    panel: ClassVar = Panel.DATA

    benign: Annotated[
        Path | None,
        Option("--benign", "--input", help="Benign prompts: JSON Lines, .txt (one per line) or .csv."),
    ] = None
    slices: Annotated[
        list[str] | None,
        Option(
            "--slice",
            metavar="NAME=FILE",
            help="Other benign prompts to report rates on, as in --benign. Repeatable. --system applies to "
            "those without a system message.",
        ),
    ] = None
    skip_invalid: Annotated[bool, Option("--skip-invalid", help="Leave out unreadable prompts.")] = False
    held_out: Annotated[float, Option(help="Fraction of prompts held out to measure the achieved rate.")] = (
        0.2
    )
    seed: Annotated[int, Option(min=0, help="Random seed for the split and for generating replies.")] = 0
    population: Annotated[str | None, Option(help="Description of the prompts, kept in the file.")] = None
    conversations: Annotated[
        int,
        Option(min=0, help="Number of prompts to reply to, for `cap` and response policies."),
    ] = 256
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens per reply.")] = 96
    worst_slice: Annotated[
        bool, Option("--worst-slice", help="Set thresholds so that every slice keeps the rate.")
    ] = False

    def __post_init__(self) -> None:
        if self.worst_slice and not self.slices:
            raise ConfigError("--worst-slice needs at least one --slice NAME=FILE")
        self.slice_files()

    def slice_files(self) -> dict[str, Path]:
        """The files of --slice by name. Raises ConfigError as `slice_files` does."""
        return slice_files(self.slices)


def slice_files(given: Sequence[str] | None) -> dict[str, Path]:
    """The files of --slice by name. Raises ConfigError for what names none, and for names given twice."""
    from guardrail.calibration.slices import BENIGN

    found: dict[str, Path] = {}
    for text in given or []:
        name, file = _slice(text)
        if name in found or name == BENIGN:
            taken = "the name of --benign itself" if name == BENIGN else "given twice"
            raise ConfigError(f"--slice {text}: `{name}` is {taken}; choose another name")
        found[name] = file
    return found


def _slice(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not (SLICE_NAME.fullmatch(name) and file):
        raise ConfigError(f"--slice {text}: write NAME=FILE, the name in letters, digits, _ . and -")
    if file == "-":
        raise ConfigError(f"--slice {text}: a slice needs a file; standard input is for --benign")
    return name, Path(file)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOptions:
    """What is calibrated, and the rates to aim at."""

    panel: ClassVar = Panel.METHOD

    vectors: Annotated[
        str | None, Option(help="Vector file, or `demo`. Default: the file that the policies name.")
    ] = None
    fpr: Annotated[
        float | None, Option(help="Target false-positive rate. Default: that of --set-fpr, or 0.01.")
    ] = None
    set_fpr: Annotated[float | None, Option(help="Target rate of all enforced policies combined.")] = None
    width: Annotated[float | None, Option(help="Show how many prompts an interval this wide needs.")] = None
    allow_model_mismatch: Annotated[
        bool,
        Option("--allow-model-mismatch", help="Accept a model that is a finetune of the vectors' model."),
    ] = False

    def __post_init__(self) -> None:
        for name, value in (("--fpr", self.fpr), ("--set-fpr", self.set_fpr), ("--width", self.width)):
            if value is not None and not 0 < value < 1:
                raise ConfigError(f"{name} must be between 0 and 1, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """The files that are written or changed."""

    out: Annotated[Path, Option(help="Calibration file to write.")] = Path("calibration.json")
    force: Annotated[bool, Option("--force", help="Overwrite --out if it exists.")] = False
    apply: Annotated[Path | None, Option(help="Policy file to update. Shows the changes only.")] = None
    write: Annotated[bool, Option("--write", help="With --apply: change the file.")] = False
    set_calibration: Annotated[
        bool,
        Option("--set-calibration", help="With --apply: set `calibration:` in the policy file to --out."),
    ] = False

    def __post_init__(self) -> None:
        if self.apply is None and (self.write or self.set_calibration):
            raise ConfigError("--write and --set-calibration need --apply FILE")

    def check_out(self) -> None:
        """Raises ConfigError if the result would replace a file: a policy may be using that calibration."""
        check_new_calibration(self.out, self.force)


def check_new_calibration(out: Path, force: bool) -> None:
    """Raises ConfigError for an --out in no folder, and for one that exists, unless it is to be replaced."""
    from guardrail.calibration.values import Calibration

    check_file(out)
    if not out.exists():
        return
    if not force:
        raise ConfigError(f"{out} exists; choose another --out, or replace it with --force")
    try:
        Calibration.load(out)
    except CalibrationError as error:
        raise ConfigError(f"{out} is not a calibration file; choose another --out") from error
