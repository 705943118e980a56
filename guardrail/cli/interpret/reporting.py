"""What verbs of `guardrail interpret` write: a page, its figures as files, and what a rerun resumes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.places import make_folder

if TYPE_CHECKING:
    from guardrail.report.drawing import Named
    from guardrail.report.page import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOption:
    """Where an interrupted run resumes from."""

    work: Annotated[
        Path | None,
        Option(help="Folder for intermediate results. If interrupted, run the same command again to resume."),
    ] = None

    def check(self) -> None:
        """Raises ConfigError if the folder cannot be made."""
        make_folder(self.work, "--work")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(PageOption):
    """The page, and where its figures go."""

    figures: Annotated[Path | None, Option(help="Folder for every figure as PNG and SVG.")] = None

    def check(self) -> None:
        """Raises ConfigError if page or figures cannot be made, before anything long begins."""
        PageOption.check(self)
        if self.figures is not None:
            from guardrail.report import check_installed

            check_installed()
            make_folder(self.figures, "--figures")

    def write(self, page: Callable[[], Page], figures: Callable[[], Iterable[Named]]) -> list[Path]:
        """Make and write what was asked for; where that is. Raises ConfigError if it cannot be written."""
        if self.html is not None:
            page().write(self.html)
        if self.figures is not None:
            from guardrail.report.drawing import write

            write(figures(), self.figures)
        return [path for path in (self.html, self.figures) if path is not None]
