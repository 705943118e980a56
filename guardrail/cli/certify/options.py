"""The options of `guardrail certify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from guardrail.cli.calibrate.options import slice_files
from guardrail.cli.options import SystemOption
from guardrail.cli.places import check_file
from guardrail.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedOptions(SystemOption):
    """The prompts, and the two configurations."""

    benign: Annotated[
        Path | None,
        Option(help="Benign prompts: JSON Lines, .txt (one per line) or .csv. Not needed for `demo`."),
    ] = None
    slices: Annotated[
        list[str] | None,
        Option(
            "--slice",
            metavar="NAME=FILE",
            help="Other benign prompts, as in `calibrate`, compared on their own. Repeatable.",
        ),
    ] = None
    input: Annotated[
        Path | None, Option("--input", help="Other prompts, such as attacks (JSON Lines), to compare on too.")
    ] = None
    record: Annotated[
        Path | None, Option(help="File to write what this configuration says, to compare later.")
    ] = None
    against: Annotated[Path | None, Option(help="Recording of the reference configuration.")] = None
    recorded: Annotated[
        Path | None, Option(help="Recording of the candidate; no model is loaded then. Needs --against.")
    ] = None

    def __post_init__(self) -> None:
        if self.recorded is not None and (self.record or self.against is None):
            raise ConfigError("--recorded FILE is compared with --against FILE, and nothing is recorded")
        if self.record is None and self.against is None:
            raise ConfigError("nothing to do: name --record FILE to write, or --against FILE to compare with")
        if self.recorded and (self.benign or self.slices or self.input or self.system is not None):
            raise ConfigError(
                "--recorded holds its prompts; leave out --benign, --slice, --input and --system"
            )
        if slice_files(self.slices) and self.benign is None:
            raise ConfigError("--slice needs --benign FILE: the prompts that slices stand beside")
        check_file(self.record)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateOptions:
    """The calibration file that is written, and how long its certificate counts."""

    out: Annotated[
        Path,
        Option(help="Calibration file to write: with a certificate (PASS), or made anew (RECALIBRATE)."),
    ] = Path("certified.json")
    force: Annotated[bool, Option("--force", help="Overwrite --out if it exists.")] = False
    max_age_days: Annotated[
        float | None,
        Option("--max-age", min=0.01, max=36500, help="Days after which the certificate is stale."),
    ] = None
    max_drift: Annotated[
        float | None,
        Option(min=0, max=1, help="Kolmogorov-Smirnov distance of live scores that makes it stale."),
    ] = None
