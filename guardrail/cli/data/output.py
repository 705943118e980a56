"""What `guardrail data screen` says: how long it will take, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from guardrail.cli.console import interval, note, print_table, warn
from guardrail.statistics.intervals import Estimate

if TYPE_CHECKING:
    from guardrail.train.screening import Screened, Screener, Thresholds, Written


def forecast(screener: Screener, paths: Sequence[Path]) -> None:
    """Say how many rows and replies are to come, and how long they take at most."""
    from guardrail.extract import workload
    from guardrail.train.screening.forecast import remaining

    work, prompts = remaining(screener, paths)
    if work.read:
        note(workload.forecast(work, workload.measured(screener.subject, prompts), None))


def results(
    found: Sequence[Screened], written: Sequence[Written], limits: Thresholds | None
) -> dict[str, Any]:
    """Everything, for JSON."""
    from guardrail.train.screening import ranking

    return {
        "data": [_result(one, files, limits) for one, files in zip(found, written, strict=True)],
        "thresholds": limits,
        "ranking": {trait: [one.name for one in places] for trait, places in ranking(found, limits).items()},
    }


def _result(one: Screened, written: Written, limits: Thresholds | None) -> dict[str, Any]:
    return {
        "name": one.name,
        "form": one.form,
        "subset": one.subset,
        "rows": {"measured": one.counts.measured, "set_aside": one.counts.aside},
        "layers": {direction.trait: direction.layer for direction in one.directions},
        "means": one.means,
        "above": limits.above(one) if limits else {},
        "kept": written.kept,
        "rejected": written.rejected,
        "unjudged": one.unjudged,
        "agreement": one.agreement,
        "cost": one.cost,
        "files": written.files,
    }


def print_found(found: Sequence[Screened], written: Sequence[Written], limits: Thresholds | None) -> None:
    """Tables for people, and where the files are."""
    _print_traits(found, limits)
    for one, files in zip(found, written, strict=True):
        _print_rows(one, files)
    if limits is None:
        note("no --clean: scores were written, and no row is kept or rejected")


def _print_traits(found: Sequence[Screened], limits: Thresholds | None) -> None:
    from guardrail.train.screening import ranking

    agreements = {one.name: one.agreement for one in found}
    rows = [
        (
            trait,
            one.name,
            one.rows,
            interval(one.mean, ".3g"),
            _percent(one.above),
            interval(agreements[one.name].get(trait), ".2f"),
        )
        for trait, places in ranking(found, limits).items()
        for one in places
    ]
    heads = ("trait", "data", "rows", "mean difference", "above threshold", "r of the cheap form")
    print_table(heads, rows)


def _print_rows(one: Screened, written: Written) -> None:
    aside = one.counts.aside
    if aside:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in aside.items())
        first = ", ".join(f"row {number}: {reason}" for number, _, reason in one.first_problems(1))
        warn(f"{one.name}: {sum(aside.values()):,} rows were set aside ({kinds}); {first}")
    if one.unjudged:
        warn(
            f"{one.name}: the judge {one.judge} gave {one.unjudged:,} rows no score; their difference decides"
        )
    if "kept" in written.files:
        typer.echo(f"{one.name}: {written.kept:,} rows kept, {written.rejected:,} rejected")
    typer.echo(f"  {', '.join(map(str, written.files.values()))}")


def _percent(value: Estimate | None) -> str:
    if value is None:
        return ""
    return f"{100 * value.value:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"
