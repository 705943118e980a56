"""How `guardrail bench` shows its results: files, JSON and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from guardrail.cli.console import console, print_json, print_table
from guardrail.cli.places import check_file, make_folder

if TYPE_CHECKING:
    from guardrail.bench.ratios import Interval, Percentiles
    from guardrail.bench.results import Report, Row, Two

COLUMNS = (
    *("case", "guarded / bare", "added ms", "guarded p50/p95/p99", "bare p50/p95/p99"),
    *("tokens/s", "peak MiB", "verdict"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """The files that results are written to."""

    out: Annotated[Path | None, Option(help="File for the results as JSON.")] = None
    html: Annotated[Path | None, Option(help="File for an HTML page (needs the extra `report`).")] = None

    def check(self) -> None:
        """Raises ConfigError if the files cannot be written, or the page not be made. Makes their folders."""
        for option, path in {"--out": self.out, "--html": self.html}.items():
            make_folder(path and path.absolute().parent, option)
            check_file(path)
        if self.html is not None:
            from guardrail.report import check_installed

            check_installed()


def show(report: Report, files: FileOptions, as_json: bool) -> None:
    """Write the files that were asked for, and print JSON, or a table for each point."""
    if files.out is not None:
        from guardrail.bench.results import write

        write(report, files.out)
    if files.html is not None:
        from guardrail.report.bench import write_html

        write_html(report, files.html)
    if as_json:
        print_json(asdict(report))
        return
    for point, rows in groupby(report.cases, key=lambda row: row.point):
        console().print()
        print_table(COLUMNS, [_line(row) for row in rows], title=None if point is None else str(point))
    for note in (*_row_notes(report), *report.notes):
        console().print(f"\n{note}", soft_wrap=True)


def _row_notes(report: Report) -> Sequence[str]:
    return tuple(dict.fromkeys(f"{row.case or row.name}: {row.note}" for row in report.cases if row.note))


def _line(row: Row) -> tuple[str, ...]:
    return (
        row.name.replace(f" ({row.point})", ""),
        *(_interval(row.ratio, 3) or row.note, _interval(row.added_ms, 2)),
        *(_spread(row.guarded_percentiles), _spread(row.bare_percentiles)),
        *(_both(row.tokens_per_s), _both(row.peak_mib if row.metric != "per token" else None)),
        row.verdict if row.goal or row.verdict != "no goal" else "",
    )


def _interval(found: Interval | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found.median:.{digits}f} ({found.low:.{digits}f}–{found.high:.{digits}f})"


def _spread(found: Percentiles | None) -> str:
    return "" if found is None else f"{found.p50:.2f}/{found.p95:.2f}/{found.p99:.2f}"


def _both(found: Two | None) -> str:
    return "" if found is None else f"{found.guarded:.0f}/{found.bare:.0f}"
